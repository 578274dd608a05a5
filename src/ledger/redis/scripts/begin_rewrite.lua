-- begin_rewrite: takes the journal of a tenant, to rewrite it aside.
--
-- KEYS[1] journal_new: the journal as it is being written
-- KEYS[2] upkeep: who rewrites, and how far was trimmed and erased
-- ARGV[1] the packed fields of BEGIN_REWRITE
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, count]; count says nothing:
--   begun: the token has it, and what another left behind is thrown away
--   busy: somebody else rewrites; nothing changed
--
-- Keeps: one rewriting at a time, as long as it says within its lease that it goes on.

local BEGIN_REWRITE = { token = 1, lease = 2 }

JOURNAL_NEW, UPKEEP = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local found = upkeep_state()

-- Read, refuse.
if found[UPKEEP_STATE.token] ~= '' and found[UPKEEP_STATE.lease_ends] > now then
  return cmsgpack.pack({ 'busy', now, 0 })
end

-- Then write.
redis.call('UNLINK', JOURNAL_NEW)
found[UPKEEP_STATE.token] = command[BEGIN_REWRITE.token]
found[UPKEEP_STATE.lease_ends] = now + command[BEGIN_REWRITE.lease] * 1000
put(UPKEEP, 'j', found)
save()
return cmsgpack.pack({ 'begun', now, 0 })
