-- position: what one call would find; reads only.
--
-- KEYS[1] accounts: counters of the tenant and the payers, and the pools
-- KEYS[2] sizes: seconds per month of each pool family
-- KEYS[3] lots: the wallet and its lots
-- KEYS[4] calls: every call that is not forgotten
-- ARGV[1] the packed fields of POSITION
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, tenant, payer, pools, credits, wallet_holds, call, overage, ring]:
--   found: all of it at one instant; call is '' where there is none

local POSITION = { payer = 1, call = 2, month_starts = 3, month_ends = 4, pools = 5, month = 6 }
local POOL_NAME = { family = 1, pool = 2 }

ACCOUNTS, SIZES, LOTS, CALLS = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local names, pools = command[POSITION.pools], {}

local fields, families = { 't', 'u:' .. command[POSITION.payer] }, {}
for i, name in ipairs(names) do
  fields[#fields + 1] = 'p:' .. name[POOL_NAME.pool]
  families[i] = name[POOL_NAME.family]
end
fetch(ACCOUNTS, fields)
fetch(SIZES, families)
for i, name in ipairs(names) do
  local size = read(SIZES, name[POOL_NAME.family]) or 0
  local unopened =
    { size, 0, 0, 0, 0, 0, command[POSITION.month_starts], command[POSITION.month_ends], 0 }
  pools[i] = read(ACCOUNTS, 'p:' .. name[POOL_NAME.pool]) or unopened
end
local payer = payer_account(command[POSITION.payer]) or { 0, false, 0, '', 0, 0, false }
local call = read_call(command[POSITION.call]) and bytes_of_call(command[POSITION.call])
return cmsgpack.pack({
  'found', now, tenant_account(), payer, pools, credits_now(), wallet()[WALLET.holds], call or '',
  overage_lot(command[POSITION.month]), stored_ring(),
})
