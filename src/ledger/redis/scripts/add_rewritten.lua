-- add_rewritten: writes the next entries of a rewritten journal.
--
-- KEYS[1] journal_new: the journal as it is being written
-- KEYS[2] upkeep: who rewrites, and how far was trimmed and erased
-- ARGV[1] the packed fields of ADD_REWRITTEN
-- ARGV[2] the clock (see read_clock)
-- ARGV[3] the id of the first entry; its bytes, its context, its report, and those of the others follow
--
-- Answers [tag, now, count]; count says nothing:
--   added: the entries stand at the end; the lease begins anew
--   lost: somebody else rewrites by now; nothing changed
--
-- Keeps: only who has the journal writes, in the order of the ids.

local ADD_REWRITTEN = { token = 1, lease = 2 }

JOURNAL_NEW, UPKEEP = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local found = upkeep_state()

-- Read, refuse.
if found[UPKEEP_STATE.token] ~= command[ADD_REWRITTEN.token] then
  return cmsgpack.pack({ 'lost', now, 0 })
end

-- Then write. The entries come first: where one is out of order, the lease is not renewed either.
if ARGV[3] then
  for i = 3, #ARGV, 4 do
    write_entry(JOURNAL_NEW, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  end
end
found[UPKEEP_STATE.lease_ends] = now + command[ADD_REWRITTEN.lease] * 1000
put(UPKEEP, 'j', found)
save()
return cmsgpack.pack({ 'added', now, 0 })
