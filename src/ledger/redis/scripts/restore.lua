-- restore: puts back a call that the ledger has no memory of, as its signed grant tells it.
--
-- KEYS[1] accounts: counters of the tenant and the payers, and the pools
-- KEYS[2] sizes: seconds per month of each pool family
-- KEYS[3] pools: ids of all pools
-- KEYS[4] lots: the wallet and its lots
-- KEYS[5] calls: every call that is not forgotten
-- KEYS[6] deadlines: open calls by expiry
-- KEYS[7] journal: everything that happened
-- ARGV[1] the clock (see read_clock)
-- ARGV[2] the packed fields of RESTORE
-- ARGV[3] the context: opaque bytes, kept with the call and its entry
-- and so on: a command and its bytes in turn
--
-- Answers for each command [tag, now, detail], and the call beside it:
--   restored: the call is open, and holds what is still there of what it held
--   known: the ledger knows the call; nothing changed
--   too_late: the grant is too old; nothing changed
--   no_tenant: the tenant was never applied; nothing changed
--
-- Keeps: a call that the ledger knows is never touched; what is held never exceeds what is available;
-- one journal entry, which counts as the record of the decision that was lost.

local RESTORE = { call = 1, too_late = 2, state = 3, fingerprint = 4, decision = 5, payer = 6, trunk = 7, authorized_at = 8, answered_at = 9, deadline = 10, sequence = 11, used = 12, granted = 13, granted_from = 14, reach = 15, terms = 16, month_starts = 17, month_ends = 18, pools = 19, money = 20 }
local RESTORED_POOL = { family = 1, pool = 2, closed_by = 3, increment = 4, taken = 5 }
local RESTORED_MONEY = { tariff = 1, spend_limit = 2, month = 3, overage = 4, velocity = 5, taken = 6 }

ACCOUNTS, SIZES, POOLS, LOTS, CALLS, DEADLINES, JOURNAL = unpack(KEYS)
now = read_clock(ARGV[1])

local function unfunded(command, context)
  local call = tombstone()
  call[CALL.state] = command[RESTORE.state]
  call[CALL.fingerprint] = command[RESTORE.fingerprint]
  call[CALL.decision] = command[RESTORE.decision]
  call[CALL.payer] = command[RESTORE.payer]
  call[CALL.trunk] = command[RESTORE.trunk]
  call[CALL.context] = context
  call[CALL.authorized_at] = command[RESTORE.authorized_at]
  call[CALL.answered_at] = command[RESTORE.answered_at]
  call[CALL.sequence] = command[RESTORE.sequence]
  call[CALL.used] = command[RESTORE.used]
  call[CALL.granted] = command[RESTORE.granted]
  call[CALL.granted_from] = command[RESTORE.granted_from]
  call[CALL.reach] = command[RESTORE.reach]
  call[CALL.terms] = command[RESTORE.terms]
  for i, pool in ipairs(command[RESTORE.pools]) do
    call[CALL.pools][i] = {
      pool[RESTORED_POOL.pool], pool[RESTORED_POOL.closed_by], pool[RESTORED_POOL.increment], 0, 0,
    }
  end
  local money = command[RESTORE.money][1]
  if money then
    call[CALL.money][1] = {
      money[RESTORED_MONEY.tariff], money[RESTORED_MONEY.spend_limit],
      money[RESTORED_MONEY.month], {}, money[RESTORED_MONEY.overage],
      money[RESTORED_MONEY.velocity],
    }
  end
  return call
end

-- Makes sure of a pool that is valid throughout the month.
local function open_pool(id, family, starts, ends)
  local bucket = read(ACCOUNTS, 'p:' .. id)
  if not bucket then
    bucket = { read(SIZES, family) or 0, 0, 0, 0, 0, 0, starts, ends, 0 }
    opened_pools[#opened_pools + 1] = id
  elseif bucket[BUCKET.starts] <= starts and bucket[BUCKET.ends] >= ends then
    return
  end
  bucket[BUCKET.starts] = math.min(bucket[BUCKET.starts], starts)
  bucket[BUCKET.ends] = math.max(bucket[BUCKET.ends], ends)
  put(ACCOUNTS, 'p:' .. id, bucket)
end

-- What the lines of the grant held, as far as it is still there: seconds by pool, money.
local function still_there(command, call)
  local seconds, money = {}, 0
  for i, side in ipairs(pool_sides(call)) do
    local most = math.min(command[RESTORE.pools][i][RESTORED_POOL.taken], side.available)
    seconds[i] = round_down(most, side.increment)
  end
  local credits, line = credit_side(call), command[RESTORE.money][1]
  if credits and line[RESTORED_MONEY.taken] > 0 then
    survey(credits)
    money = math.min(line[RESTORED_MONEY.taken], credits.available)
  end
  return seconds, money
end

local function restore(command, context)
  local id = command[RESTORE.call]

  -- Read, refuse.
  if read(CALLS, id) then return reply('known') end
  if now >= command[RESTORE.too_late] then return reply('too_late') end
  local call = unfunded(command, context)
  fetch_accounts_of(call)
  if tenant_account()[TENANT_ACCOUNT.version] == 0 then return reply('no_tenant') end

  -- Then write.
  local postings, terms = {}, call[CALL.terms]
  if not terms[TERMS.free] then
    local starts, ends = command[RESTORE.month_starts], command[RESTORE.month_ends]
    for _, pool in ipairs(command[RESTORE.pools]) do
      local family = pool[RESTORED_POOL.family]
      if family ~= '' and starts <= now then
        open_pool(pool[RESTORED_POOL.pool], family, starts, ends)
      end
    end
    local seconds, money = still_there(command, call)
    postings = hold(call, seconds, money)
  end
  open(id, call, math.max(command[RESTORE.deadline], now + terms[TERMS.grace] * 1000))
  note_call('restored', id, call, postings)
  count_decision()
  return reply('restored')
end

return carry_out(ARGV, fetch_calls, restore)
