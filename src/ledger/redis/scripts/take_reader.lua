-- take_reader: takes a reader of the journal, or keeps the one that is had.
--
-- KEYS[1] readers: how far each reader of the journal is, and who reads for it
-- ARGV[1] the packed fields of TAKE_READER
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, reader], the reader as it stands now:
--   taken: the owner has it, and its lease begins anew
--   busy: another has it, and its lease lasts; nothing changed
--
-- Keeps: a reader has one owner, who changes only when the lease is over.

local TAKE_READER = { reader = 1, owner = 2, lease = 3, since = 4 }

READERS = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local name, owner = command[TAKE_READER.reader], command[TAKE_READER.owner]

-- Read, refuse.
local reader = read(READERS, name) or { '', 0, command[TAKE_READER.since], '' }
if reader[READER.owner] ~= owner and reader[READER.ends] > now then
  return cmsgpack.pack({ 'busy', now, reader })
end

-- Then write.
reader[READER.owner] = owner
reader[READER.ends] = now + command[TAKE_READER.lease] * 1000
put(READERS, name, reader)
save()
return cmsgpack.pack({ 'taken', now, reader })
