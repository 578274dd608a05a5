-- move_reader: a reader of the journal is done with an entry.
--
-- KEYS[1] readers: how far each reader of the journal is, and who reads for it
-- ARGV[1] the packed fields of MOVE_READER
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, count]; count says nothing:
--   moved: it stands there, and its lease begins anew
--   lost: another has taken it; nothing changed
--
-- Keeps: only its owner moves a reader.

local MOVE_READER = { reader = 1, owner = 2, cursor = 3, lease = 4 }

READERS = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local name = command[MOVE_READER.reader]

-- Read, refuse: a lease that has run out does no harm as long as nobody else has taken it.
local reader = read(READERS, name)
if not reader or reader[READER.owner] ~= command[MOVE_READER.owner] then
  return cmsgpack.pack({ 'lost', now, 0 })
end

-- Then write.
reader[READER.cursor] = command[MOVE_READER.cursor]
reader[READER.ends] = now + command[MOVE_READER.lease] * 1000
put(READERS, name, reader)
save()
return cmsgpack.pack({ 'moved', now, 0 })
