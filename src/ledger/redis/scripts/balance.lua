-- balance: every pool and lot; reads only, and nothing that grows with the payers.
--
-- KEYS[1] accounts: counters of the tenant and the payers, and the pools
-- KEYS[2] sizes: seconds per month of each pool family
-- KEYS[3] pools: ids of all pools
-- KEYS[4] lots: the wallet and its lots
-- ARGV[1] the packed fields of BALANCE, of which there are none
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, sizes, pools, lots, wallet_holds, recharge, in_flight, owed], each list one of name
-- and value, but recharge and in_flight of nothing or one:
--   found: all of it at one instant

ACCOUNTS, SIZES, POOLS, LOTS = unpack(KEYS)
now = read_clock(ARGV[2])

local function unpacked(flat)
  local list = {}
  for i = 1, #flat, 2 do list[#list + 1] = { flat[i], cmsgpack.unpack(flat[i + 1]) } end
  return list
end

local ids, fields, pools = redis.call('SMEMBERS', POOLS), {}, {}
for i, id in ipairs(ids) do fields[i] = 'p:' .. id end
fetch(ACCOUNTS, fields)
for i, id in ipairs(ids) do pools[i] = { id, read(ACCOUNTS, fields[i]) } end
local sizes, lots = unpacked(redis.call('HGETALL', SIZES)), {}
for _, item in ipairs(unpacked(redis.call('HGETALL', LOTS))) do
  if string.sub(item[1], 1, 2) == 'l:' then
    lots[#lots + 1] = { string.sub(item[1], 3), item[2] }
  end
end
local found, in_flight = wallet(), {}
local recharge = found[WALLET.recharge][1]
if recharge and recharge[RECHARGE.in_flight] then
  in_flight[1] = read(LOTS, 'r:recharge.' .. decimal(recharge[RECHARGE.requests])) or nil
end
return cmsgpack.pack({
  'found', now, sizes, pools, lots, found[WALLET.holds], found[WALLET.recharge], in_flight,
  found[WALLET.owed],
})
