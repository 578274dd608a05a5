-- abandon_rewrite: throws away what was written of a journal.
--
-- KEYS[1] journal_new: the journal as it is being written
-- KEYS[2] upkeep: who rewrites, and how far was trimmed and erased
-- ARGV[1] the packed fields of ABANDON_REWRITE
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, count]; count says nothing:
--   abandoned: nobody rewrites
--   lost: somebody else rewrites by now; nothing changed
--
-- Keeps: the journal as it is.

local ABANDON_REWRITE = { token = 1, trimmed = 2, erased = 3 }

JOURNAL_NEW, UPKEEP = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local found = upkeep_state()

-- Read, refuse.
if found[UPKEEP_STATE.token] ~= command[ABANDON_REWRITE.token] then
  return cmsgpack.pack({ 'lost', now, 0 })
end

-- Then write.
redis.call('UNLINK', JOURNAL_NEW)
found[UPKEEP_STATE.token] = ''
found[UPKEEP_STATE.lease_ends] = 0
found[UPKEEP_STATE.trimmed] =
  math.max(found[UPKEEP_STATE.trimmed], command[ABANDON_REWRITE.trimmed])
found[UPKEEP_STATE.erased] = math.max(found[UPKEEP_STATE.erased], command[ABANDON_REWRITE.erased])
put(UPKEEP, 'j', found)
save()
return cmsgpack.pack({ 'abandoned', now, 0 })
