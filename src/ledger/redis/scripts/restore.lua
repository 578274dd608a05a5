-- restore: puts back a call that the ledger has no memory of, as its signed grant tells it.
--
-- FIELDS those of RESTORE
-- OPAQUE the context, kept with the call and its entry
-- SHARED the packed fields of SHAPE
--
-- Answers for each command [tag, now, detail], and the call beside it:
--   restored: the call is open, and holds what is still there of what it held
--   known: the ledger knows the call; nothing changed
--   too_late: the grant is too old; nothing changed
--   no_tenant: the tenant was never applied; nothing changed
--
-- Keeps: a call that the ledger knows is never touched, but for a refusal or a smaller grant of the same
-- request that gives way to a grant out of leases; what is held never exceeds what is available; one journal entry, which counts as the record of
-- the decision that was lost, and one for each lease that lends.

local RESTORE = { call = 1, too_late = 2, state = 3, fingerprint = 4, decision = 5, payer = 6, trunk = 7, authorized_at = 8, answered_at = 9, deadline = 10, sequence = 11, used = 12, granted = 13, granted_from = 14, reach = 15, month_starts = 16, month_ends = 17, pools = 18, money = 19, leases = 20 }
local RESTORED_POOL = { family = 1, taken = 2 }

local function unfunded(command, context, shape)
  local identity = packed_identity(command[RESTORE.fingerprint], command[RESTORE.trunk])
  local call = fresh_call(command[RESTORE.state], identity, command[RESTORE.decision],
    command[RESTORE.payer], context, shape)
  call[CALL.authorized_at] = command[RESTORE.authorized_at]
  call[CALL.answered_at] = command[RESTORE.answered_at]
  call[CALL.sequence] = command[RESTORE.sequence]
  call[CALL.used] = command[RESTORE.used]
  call[CALL.granted] = command[RESTORE.granted]
  call[CALL.granted_from] = command[RESTORE.granted_from]
  call[CALL.reach] = command[RESTORE.reach]
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

-- What is still there of these seconds by pool, and of this money.
local function still_there(call, wanted, wanted_money)
  local seconds, money = {}, 0
  for i, side in ipairs(pool_sides(call)) do
    seconds[i] = round_down(math.min(wanted[i], side.available), side.increment)
  end
  local credits = credit_side(call)
  if credits and wanted_money > 0 then
    survey(credits)
    money = math.min(wanted_money, credits.available)
  end
  return seconds, money
end

-- What a call's lines hold: seconds by pool, money by lot.
local function held_by(call)
  local seconds, lots = {}, {}
  for i, pool in ipairs(shape_of(call)[SHAPE.pools]) do
    seconds[i] = { pool[POOL_SHAPE.pool], call[CALL.money_length + 2 * i - 1] }
  end
  for i, line in ipairs(has_money(call) and money_line(call)[MONEY_LINE.lots] or {}) do
    lots[i] = { line[LOT_LINE.lot], line[LOT_LINE.held] }
  end
  return seconds, lots
end

-- Has leases give back everything that they hold, for this instant.
local function call_in(leases)
  local lenders, seen = {}, {}
  for _, id in ipairs(leases) do
    local lease = not seen[id] and read_call(id)
    if lease and lease[CALL.state] == STATE.ringing then
      seen[id] = true
      fetch_accounts_of(lease)
      local seconds, lots = held_by(lease)
      local postings = settle_lines(lease, 0)
      lenders[#lenders + 1] =
        { id = id, lease = lease, seconds = seconds, lots = lots, postings = postings }
    end
  end
  return lenders
end

-- Has leases hold again what they held, without what the call holds now.
local function lend_again(lenders, call)
  local taken, taken_lots = held_by(call)
  for _, lender in ipairs(lenders) do
    local wanted, wanted_money = {}, 0
    for i, held in ipairs(lender.seconds) do
      for _, other in ipairs(taken) do
        local part = other[1] == held[1] and math.min(held[2], other[2]) or 0
        held[2], other[2] = held[2] - part, other[2] - part
      end
      wanted[i] = held[2]
    end
    for _, held in ipairs(lender.lots) do
      for _, other in ipairs(taken_lots) do
        local part = math.min(held[2], other[2])
        held[2], other[2] = held[2] - part, other[2] - part
      end
      wanted_money = wanted_money + held[2]
    end
    local seconds, money = still_there(lender.lease, wanted, wanted_money)
    for _, again in ipairs(hold(lender.lease, seconds, money)) do
      lender.postings[#lender.postings + 1] = again
    end
    put(CALLS, lender.id, lender.lease)
    note_call('extended', lender.id, lender.lease, lender.postings)
  end
end

-- Whether a call that the ledger knows gives way: a refusal, or a ringing call that holds less.
local function replaces(command, known)
  if #command[RESTORE.leases] == 0 or fingerprint_of(known) ~= command[RESTORE.fingerprint] then
    return false
  end
  if known[CALL.state] == STATE.denied then return known[CALL.parked] <= 0 end
  if known[CALL.state] ~= STATE.ringing then return false end
  local seconds, held = 0, money_sums(known)
  for _, pool in ipairs(command[RESTORE.pools]) do seconds = seconds + pool[RESTORED_POOL.taken] end
  for i = 1, known[CALL.lines] do seconds = seconds - known[CALL.money_length + 2 * i - 1] end
  return seconds > 0 or command[RESTORE.money] > held
end

local function restore(command, context, its_shape)
  local id = command[RESTORE.call]

  -- Read, refuse.
  local known = read_call(id)
  if known and not replaces(command, known) then return reply('known') end
  if now >= command[RESTORE.too_late] then return reply('too_late') end
  local call = unfunded(command, context, its_shape)
  fetch_accounts_of(call)
  if tenant_account()[TENANT_ACCOUNT.version] == 0 then return reply('no_tenant') end

  -- Then write.
  if known and known[CALL.state] == STATE.ringing then
    fetch_accounts_of(known)
    local postings = settle_lines(known, 0)
    close(id, known, STATE.released, now)
    note_call('released', id, known, postings)
  end
  if known then retained[id] = false end
  local shape = shape_of(call)
  local postings, terms, lenders = {}, shape[SHAPE.terms], {}
  if not terms[TERMS.free] then
    lenders = call_in(command[RESTORE.leases])
    local starts, ends = command[RESTORE.month_starts], command[RESTORE.month_ends]
    local wanted = {}
    for i, pool in ipairs(command[RESTORE.pools]) do
      local family = pool[RESTORED_POOL.family]
      if family ~= '' and starts <= now then
        open_pool(shape[SHAPE.pools][i][POOL_SHAPE.pool], family, starts, ends)
      end
      wanted[i] = pool[RESTORED_POOL.taken]
    end
    local seconds, money = still_there(call, wanted, command[RESTORE.money])
    postings = hold(call, seconds, money)
  end
  open(id, call, math.max(command[RESTORE.deadline], now + terms[TERMS.grace] * 1000))
  note_call('restored', id, call, postings)
  count_decision()
  lend_again(lenders, call)
  return reply('restored')
end

-- It needs what its own shape names, which it reads by itself.
local function hand_on(_, _, _, its_shape) return its_shape end

wants_of[VERB.restore], decides[VERB.restore] = hand_on, restore
arguments_of[VERB.restore] = 3
