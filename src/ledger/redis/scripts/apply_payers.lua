-- apply_payers: creates or updates payers, and resizes the month's pools by their licences (D9).
--
-- KEYS[1] accounts: counters of the tenant and the payers, and the pools
-- KEYS[2] sizes: seconds per month of each pool family
-- KEYS[3] profiles: what was applied
-- KEYS[4] numbers: each number of a payer that is not removed, and who has it
-- KEYS[5] blocks: the blocks that stand
-- KEYS[6] journal: everything that happened
-- ARGV[1] the packed fields of APPLY_PAYERS
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, count]:
--   changed: so many payers were not as they already stood
--   stale: the month moved on; nothing changed
--
-- Keeps: a family's size is the sum of its payers' seats; a payer's version moves with every change,
-- the tenant's with every change of numbers; a block that was not applied is not touched.

local APPLY_PAYERS = { month = 1, month_starts = 2, month_ends = 3, updates = 4 }
local PAYER_UPDATE = { payer = 1, stored = 2 }
local STORED_PAYER = { profile = 1, state = 2, seats = 3, numbers = 4 }

ACCOUNTS, SIZES, PROFILES, NUMBERS, BLOCKS, JOURNAL = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local updates, month = command[APPLY_PAYERS.updates], command[APPLY_PAYERS.month]

local NOBODY = { '', '', {}, {} }

-- Whether two values are equal, element by element.
local function same(one, other)
  if type(one) ~= 'table' then return one == other end
  if #one ~= #other then return false end
  for i = 1, #one do
    if not same(one[i], other[i]) then return false end
  end
  return true
end

-- The numbers that can be reached.
local function reachable(stored)
  return stored[STORED_PAYER.state] == 'removed' and {} or stored[STORED_PAYER.numbers]
end

-- Reads what one payer, as it was or is to be, has to do with.
local function fetch_around(all)
  local families, pools, numbers = {}, {}, {}
  for _, stored in ipairs(all) do
    for _, seat in ipairs(stored[STORED_PAYER.seats]) do
      families[#families + 1] = seat[1]
      pools[#pools + 1] = 'p:' .. seat[1] .. ':' .. month
    end
    for _, number in ipairs(stored[STORED_PAYER.numbers]) do numbers[#numbers + 1] = number end
  end
  fetch(SIZES, families)
  fetch(ACCOUNTS, pools)
  fetch(NUMBERS, numbers)
end

-- Who has the number besides the payer.
local function others_of(number, payer)
  local others = {}
  for _, other in ipairs(read(NUMBERS, number) or {}) do
    if other ~= payer then others[#others + 1] = other end
  end
  return others
end

local function move_numbers(payer, old, new)
  for _, number in ipairs(reachable(old)) do
    local others = others_of(number, payer)
    put(NUMBERS, number, #others > 0 and others)
  end
  for _, number in ipairs(reachable(new)) do
    local all = others_of(number, payer)
    all[#all + 1] = payer
    put(NUMBERS, number, all)
  end
end

local function resize(old, new)
  local function add(sign, seats)
    for _, seat in ipairs(seats) do
      put(SIZES, seat[1], (read(SIZES, seat[1]) or 0) + sign * seat[2])
    end
  end
  add(-1, old[STORED_PAYER.seats])
  add(1, new[STORED_PAYER.seats])
  for _, stored in ipairs({ old, new }) do
    for _, seat in ipairs(stored[STORED_PAYER.seats]) do
      local field = 'p:' .. seat[1] .. ':' .. month
      local bucket = read(ACCOUNTS, field)
      if bucket then
        bucket[BUCKET.funded] = read(SIZES, seat[1])
        bucket[BUCKET.alerted] = math.min(bucket[BUCKET.alerted], alert_due(bucket))
        put(ACCOUNTS, field, bucket)
      end
    end
  end
end

-- Read, refuse.
if now < command[APPLY_PAYERS.month_starts] or now >= command[APPLY_PAYERS.month_ends] then
  return cmsgpack.pack({ 'stale', now, 0 })
end
local fields, around = {}, {}
for i, update in ipairs(updates) do
  fields[i], around[i] = 'u:' .. update[PAYER_UPDATE.payer], update[PAYER_UPDATE.stored]
end
fetch(PROFILES, fields)
fetch(ACCOUNTS, fields)
for _, update in ipairs(updates) do
  around[#around + 1] = read(PROFILES, 'u:' .. update[PAYER_UPDATE.payer]) or nil
end
fetch_around(around)

-- Then write.
local count, numbers_moved = 0, false
for _, update in ipairs(updates) do
  local payer, new = update[PAYER_UPDATE.payer], update[PAYER_UPDATE.stored]
  local field = 'u:' .. payer
  local old = read(PROFILES, field) or NOBODY
  if not same(old, new) then
    count = count + 1
    local account = read(ACCOUNTS, field) or { 0, false, 0, '', 0, 0, false }
    account[PAYER_ACCOUNT.version] = account[PAYER_ACCOUNT.version] + 1
    local blocked = new[STORED_PAYER.state] == 'blocked'
    if blocked ~= account[PAYER_ACCOUNT.blocked] then
      account[PAYER_ACCOUNT.blocked] = blocked
      keep_block('f:' .. payer, payer, 'file', blocked and { now, '', '' }, '')
    end
    put(ACCOUNTS, field, account)
    put(PROFILES, field, new)
    resize(old, new)
    if old[STORED_PAYER.state] ~= new[STORED_PAYER.state]
      or not same(old[STORED_PAYER.numbers], new[STORED_PAYER.numbers]) then
      numbers_moved = true
      move_numbers(payer, old, new)
    end
  end
end
if numbers_moved then
  local tenant = tenant_account()
  tenant[TENANT_ACCOUNT.version] = tenant[TENANT_ACCOUNT.version] + 1
  put(ACCOUNTS, 't', tenant)
end
save()
return cmsgpack.pack({ 'changed', now, count })
