-- adjust_balance: corrects a lot, or a pool of the month (D19).
--
-- KEYS[1] accounts: counters of the tenant and the payers, and the pools
-- KEYS[2] sizes: seconds per month of each pool family
-- KEYS[3] pools: ids of all pools
-- KEYS[4] lots: the wallet and its lots
-- KEYS[5] journal: everything that happened
-- KEYS[6] adjustments: every correction by its key
-- ARGV[1] the packed fields of ADJUST_BALANCE; bucket is as postings name it
-- ARGV[2] the clock (see read_clock)
-- ARGV[3] the report: opaque bytes, kept with the journal entry
--
-- Answers [tag, now, entries, number], an entry where there is one:
--   applied: the entry is in the journal
--   replayed: the same correction was applied before, with this entry
--   conflict: the key was used for another correction; nothing changed, here and below
--   not_found: no such lot or pool
--   over: the lot has lapsed, the month of the pool is over
--   post_paid: overage is what was held and spent of it; there is nothing to correct
--   short: less is available than is to be taken away; the number is what there is
--   full: more is to be added than there is room for; the number is that room
--   stale: the month moved on
--
-- Keeps: each key is applied once; no bucket goes below zero; a lot that has money again stands in the
-- drawing order.

local ADJUST_BALANCE = { key = 1, fingerprint = 2, bucket = 3, amount = 4, most = 5, pool = 6 }
local POOL_OF_MONTH = { pool = 1, family = 2, is_current = 3, month_starts = 4, month_ends = 5 }

ACCOUNTS, SIZES, POOLS, LOTS, JOURNAL, ADJUSTMENTS = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local key, fingerprint = command[ADJUST_BALANCE.key], command[ADJUST_BALANCE.fingerprint]
local field, amount, most =
  command[ADJUST_BALANCE.bucket], command[ADJUST_BALANCE.amount], command[ADJUST_BALANCE.most]
local pool = command[ADJUST_BALANCE.pool][1]

-- Notes the entry, remembers its key, and writes.
local function adjusted()
  local kind, posted = 'adjusted', posting(field, 0, 0, 0, 0, amount)
  local entry = { kind, now, field, '', '', 0, 0, 0, 0, { posted }, '', ARGV[3] }
  note(entry)
  note_alerts()
  local kept = remember(key, fingerprint, entry)
  save()
  return adjust_reply('applied', kept)
end

-- What may still be spent of the wallet, holds included.
local function in_wallet()
  local sum = 0
  for _, id in ipairs(live_lots()) do
    local bucket = lot(id)
    if bucket then
      sum = sum + bucket[BUCKET.held] + (bucket[BUCKET.ends] > now and available(bucket) or 0)
    end
  end
  return sum
end

local function adjust_lot()
  -- Read, refuse.
  local id = string.sub(field, 3)
  if is_overage(id) then return adjust_reply('post_paid') end
  local bucket = read(LOTS, field)
  if not bucket then return adjust_reply('not_found') end
  if bucket[BUCKET.ends] <= now then return adjust_reply('over') end
  local left = available(bucket)
  if left + amount < 0 then return adjust_reply('short', nil, left) end
  if amount > 0 then
    local room = most - math.max(in_wallet(), bucket[BUCKET.funded] + bucket[BUCKET.adjusted])
    if amount > room then return adjust_reply('full', nil, math.max(room, 0)) end
  end
  -- Then write.
  bucket[BUCKET.adjusted] = bucket[BUCKET.adjusted] + amount
  put(LOTS, field, bucket)
  if amount > 0 then enlist_lot(id) end
  drop_empty_lots()
  judge_recharge()
  return adjusted()
end

local function adjust_pool()
  -- Read, refuse.
  local starts, ends = pool[POOL_OF_MONTH.month_starts], pool[POOL_OF_MONTH.month_ends]
  if now < starts or now >= ends then return adjust_reply('stale') end
  local bucket = read(ACCOUNTS, field)
  if not pool[POOL_OF_MONTH.is_current] then
    return adjust_reply(bucket and 'over' or 'not_found')
  end
  local is_new = not bucket
  if is_new then
    local size = read(SIZES, pool[POOL_OF_MONTH.family])
    if not size then return adjust_reply('not_found') end
    bucket = { size, 0, 0, 0, 0, 0, starts, ends, 0 }
  end
  local left = available(bucket)
  if amount < 0 and left + amount < 0 then return adjust_reply('short', nil, left) end
  local room = most - bucket[BUCKET.funded] - bucket[BUCKET.adjusted]
  if amount > room then return adjust_reply('full', nil, math.max(room, 0)) end
  -- Then write.
  bucket[BUCKET.adjusted] = bucket[BUCKET.adjusted] + amount
  bucket[BUCKET.alerted] = math.min(bucket[BUCKET.alerted], alert_due(bucket))
  bucket[BUCKET.starts] = math.min(bucket[BUCKET.starts], starts)
  bucket[BUCKET.ends] = math.max(bucket[BUCKET.ends], ends)
  put(ACCOUNTS, field, bucket)
  if is_new then opened_pools[#opened_pools + 1] = pool[POOL_OF_MONTH.pool] end
  return adjusted()
end

local known = read(ADJUSTMENTS, key)
if known then
  if known[ADJUSTMENT.fingerprint] ~= fingerprint then return adjust_reply('conflict') end
  return adjust_reply('replayed', known[ADJUSTMENT.entry])
end
if pool then return adjust_pool() end
return adjust_lot()
