-- apply_tenant: creates or updates the tenant.
--
-- KEYS[1] accounts: counters of the tenant and the payers, and the pools
-- KEYS[2] profiles: what was applied
-- ARGV[1] the packed fields of APPLY_TENANT; over is an array of nothing or one
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, count]; count says nothing:
--   changed: the record is new, and so is the version
--   unchanged: the record was stored as it is
--   stale: the tenant has another version than that to write over; nothing changed
--
-- Keeps: the version moves with every change, so that no decision rests on a stale copy.

local APPLY_TENANT = { record = 1, suspended = 2, over = 3 }

ACCOUNTS, PROFILES = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])

-- Read, refuse.
if redis.call('HGET', PROFILES, 't') == command[APPLY_TENANT.record] then
  return cmsgpack.pack({ 'unchanged', now, 0 })
end
local tenant = tenant_account()
local over = command[APPLY_TENANT.over][1]
if over and tenant[TENANT_ACCOUNT.version] ~= over then
  return cmsgpack.pack({ 'stale', now, 0 })
end

-- Then write: the version first, so that nobody believes an old copy to be the new record's.
tenant[TENANT_ACCOUNT.version] = tenant[TENANT_ACCOUNT.version] + 1
tenant[TENANT_ACCOUNT.suspended] = command[APPLY_TENANT.suspended]
put(ACCOUNTS, 't', tenant)
save()
redis.call('HSET', PROFILES, 't', command[APPLY_TENANT.record])
return cmsgpack.pack({ 'changed', now, 0 })
