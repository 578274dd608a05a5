-- authorize: decides a call, and holds what it may cost.
--
-- KEYS[1] accounts: counters of the tenant and the payers, and the pools
-- KEYS[2] sizes: seconds per month of each pool family
-- KEYS[3] pools: ids of all pools
-- KEYS[4] lots: the wallet and its lots
-- KEYS[5] calls: every call that is not forgotten
-- KEYS[6] deadlines: open calls by expiry
-- KEYS[7] retained: other calls by the instant at which they are forgotten
-- KEYS[8] journal: everything that happened
-- ARGV[1] the clock (see read_clock)
-- ARGV[2] the packed fields of AUTHORIZE, and behind them those of OFFER unless it is a refusal
-- ARGV[3] the context: opaque bytes, kept with the call and its entry
-- and so on: a command and its bytes in turn
--
-- Answers for each command [tag, now, detail], and the call beside it:
--   decided: now; the call is ringing or denied
--   replayed: before, with the same payload
--   conflict: the key was used with another payload; the call is as it was
--   ended: the call of this key is over
--   rate_limited: too many calls this second; no call is stored
--   stale: a version or the month moved on; nothing is decided
--
-- Keeps: one journal entry for each decision; what is held never exceeds what is available; a stored
-- decision never changes. Due holds of others expire on the way, each complete in itself, so that
-- their funds are seen; they are written with every outcome, stale too.

local AUTHORIZE = { call = 1, fingerprint = 2, payer = 3, trunk = 4, tenant_version = 5, payer_version = 6, denied_retention = 7, ended_retention = 8, swept = 9, proposal = 10, refusal = 11, nuance = 12 }
local OFFER = { decision = 1, month = 2, month_starts = 3, month_ends = 4, terms = 5, requested = 6, pools = 7, money = 8, payer_calls = 9, tenant_calls = 10, calls_per_second = 11, when_exhausted = 12, when_spend_limited = 13, when_velocity_limited = 14 }
local POOL_OFFER = { family = 1, pool = 2, closed_by = 3, increment = 4 }
local MONEY_OFFER = { tariff = 1, spend_limit = 2, overage = 3, velocity = 4 }

ACCOUNTS, SIZES, POOLS, LOTS, CALLS, DEADLINES, RETAINED, JOURNAL = unpack(KEYS)
now = read_clock(ARGV[1])

-- The command in hand: each is decided as if it had come alone.
local command, context, id, offer

-- Offers by their bytes: many calls are made the same one, so that it is unpacked once. Bytes always mean the
-- same; nothing in an offer may be changed.
local offers, offers_known = {}, 0

local function offer_of(this)
  local bytes = this.more
  local found = bytes and offers[bytes]
  if bytes and not found then
    if offers_known >= 64 then offers, offers_known = {}, 0 end
    found = unpack_array(bytes)
    offers[bytes], offers_known = found, offers_known + 1
  end
  return found
end

local function new_call(state, decision, terms)
  return fresh_call(state, command[AUTHORIZE.fingerprint], decision, command[AUTHORIZE.payer],
    command[AUTHORIZE.trunk], context, terms or no_terms())
end

-- A decision that leaves the call of its key as it is.
local function note_refusal(decision)
  note_call('refused', id, new_call(STATE.denied, decision), {})
  count_decision()
end

local function deny(decision, nuance)
  local call = new_call(STATE.denied, decision)
  call[CALL.nuance] = nuance
  retain(id, call, now + command[AUTHORIZE.denied_retention] * 1000)
  note_call('refused', id, call, {})
  count_decision()
  return reply('decided', id)
end

local NONE = {}

-- The pools of the offer that do not exist yet, as they would be opened.
local function unopened_pools()
  local pools, are_open = offer[OFFER.pools], true
  for i = 1, #pools do
    if not read(ACCOUNTS, pool_field(pools[i][POOL_OFFER.pool])) then are_open = false end
  end
  if are_open then return NONE, NONE end
  local unopened, families, new_pools = {}, {}, {}
  for i = 1, #pools do
    local id = pools[i][POOL_OFFER.pool]
    if not read(ACCOUNTS, pool_field(id)) then
      unopened[#unopened + 1] = id
      families[#families + 1] = pools[i][POOL_OFFER.family]
    end
  end
  fetch(SIZES, families)
  for i, pool in ipairs(unopened) do
    local size = read(SIZES, families[i]) or 0
    new_pools[pool] =
      { size, 0, 0, 0, 0, 0, offer[OFFER.month_starts], offer[OFFER.month_ends], 0 }
  end
  return unopened, new_pools
end

-- Keeps an open pool valid throughout the month, also where a new time zone of the tenant has moved the
-- month's ends since it was made.
local function cover_month(pool, starts, ends)
  local field = pool_field(pool)
  local bucket = read(ACCOUNTS, field)
  if bucket[BUCKET.starts] > starts or bucket[BUCKET.ends] < ends then
    bucket[BUCKET.starts] = math.min(bucket[BUCKET.starts], starts)
    bucket[BUCKET.ends] = math.max(bucket[BUCKET.ends], ends)
    put(ACCOUNTS, field, bucket)
  end
end

local function grant()
  local terms, offered = offer[OFFER.terms], offer[OFFER.pools]
  local call = new_call(STATE.ringing, offer[OFFER.decision], terms)
  local lines = call[CALL.pools]
  for i = 1, #offered do
    local pool = offered[i]
    lines[i] = { pool[POOL_OFFER.pool], pool[POOL_OFFER.closed_by], pool[POOL_OFFER.increment], 0, 0 }
  end
  local money = offer[OFFER.money][1]
  if money then
    local velocity, of_call = money[MONEY_OFFER.velocity][1], {}
    if velocity then of_call[1] = { velocity[VELOCITY_LINE.most], velocity[VELOCITY_LINE.width], {} } end
    call[CALL.money][1] = {
      money[MONEY_OFFER.tariff], money[MONEY_OFFER.spend_limit], offer[OFFER.month], {},
      money[MONEY_OFFER.overage], of_call,
    }
  end
  local requested, postings = offer[OFFER.requested], {}
  if terms[TERMS.free] then
    call[CALL.granted] = requested
  else
    local unopened, new_pools = unopened_pools()
    local added_to, added_money, covered, reach =
      reserve(requested, pool_sides(call, new_pools), credit_side(call))
    if covered <= 0 then
      local decision = offer[OFFER.when_exhausted]
      if reach == REACH.spend_limit then decision = offer[OFFER.when_spend_limited] end
      if reach == REACH.velocity then decision = offer[OFFER.when_velocity_limited] end
      return deny(decision, NUANCE.none)
    end
    for _, pool in ipairs(unopened) do
      put(ACCOUNTS, pool_field(pool), new_pools[pool])
      opened_pools[#opened_pools + 1] = pool
    end
    local starts, ends = offer[OFFER.month_starts], offer[OFFER.month_ends]
    for i = 1, #lines do cover_month(lines[i][POOL_LINE.pool], starts, ends) end
    call[CALL.granted] = covered < requested and covered or requested
    call[CALL.reach] = reach
    postings = hold(call, added_to, added_money)
  end
  local life = terms[TERMS.ringing]
  if not terms[TERMS.reports_answer] then
    life = life + call[CALL.granted] + terms[TERMS.grace]
  end
  open(id, call, now + life * 1000)
  note_call('authorized', id, call, postings)
  count_decision()
  return reply('decided', id)
end

-- A call that was granted without the ledger, and whose key the ledger knows: its repeat, or its end
-- that overtook it. Anything else keeps the record and leaves the call as it is.
local function record_again(was)
  local decision = offer[OFFER.decision]
  if was[CALL.state] ~= STATE.ended then
    local same = was[CALL.fingerprint] == command[AUTHORIZE.fingerprint]
    if same and was[CALL.decision] == decision then return reply('replayed', id) end
    if same and was[CALL.state] == STATE.denied then
      -- A refusal that came too late to be told: the client has the grant.
      retained[id] = false
      return grant()
    end
    note_call('authorized', id, new_call(STATE.ringing, decision), {})
    count_decision()
    return reply('conflict')
  end
  local call = new_call(STATE.released, decision, offer[OFFER.terms])
  call[CALL.granted] = offer[OFFER.requested]
  call[CALL.ended_at] = was[CALL.ended_at]
  call[CALL.deadline] = was[CALL.deadline]
  call[CALL.used] = was[CALL.parked]
  call[CALL.settle_used] = was[CALL.parked]
  note_call('authorized', id, call, {})
  count_decision()
  local kind = 'released'
  if was[CALL.parked] > 0 then
    call[CALL.state] = STATE.settled
    kind = 'settled'
  end
  note_call(kind, id, call, {})
  put(CALLS, id, call)
  return reply('decided', id)
end

local function authorize_again(call)
  local state = call[CALL.state]
  if command[AUTHORIZE.proposal] == 'record' then return record_again(call) end
  if state ~= STATE.ended and call[CALL.fingerprint] ~= command[AUTHORIZE.fingerprint] then
    note_refusal('KEY_CONFLICT')
    return reply('conflict')
  end
  if state == STATE.denied or is_open(call) then return reply('replayed', id) end
  note_refusal('CALL_ALREADY_ENDED')
  return reply('ended')
end

-- The refusal that the limits ask for, with its nuance; nil where there is none.
local function check_limits(tenant, payer)
  local most = offer[OFFER.calls_per_second]
  if most >= 0 then
    local second = (now - now % 1000) / 1000
    if tenant[TENANT_ACCOUNT.second] ~= second then
      tenant[TENANT_ACCOUNT.second] = second
      tenant[TENANT_ACCOUNT.calls_in_second] = 0
      put(ACCOUNTS, 't', tenant)
    end
    if tenant[TENANT_ACCOUNT.calls_in_second] >= most then return 'RATE_LIMITED', NUANCE.none end
    tenant[TENANT_ACCOUNT.calls_in_second] = tenant[TENANT_ACCOUNT.calls_in_second] + 1
    put(ACCOUNTS, 't', tenant)
  end
  local of_payer, of_tenant = offer[OFFER.payer_calls], offer[OFFER.tenant_calls]
  if of_payer >= 0 and (payer and payer[PAYER_ACCOUNT.open] or 0) >= of_payer then
    return 'CONCURRENCY_LIMIT', NUANCE.none
  end
  if of_tenant >= 0 and tenant[TENANT_ACCOUNT.open] >= of_tenant then
    return 'CONCURRENCY_LIMIT', NUANCE.of_tenant
  end
end

-- Reads what the commands need, and expires what is due on the way.
local function prepare(commands)
  local fields, swept = { 't' }, 0
  for i = 1, #commands do
    local one = commands[i]
    local proposed = offer_of(one)
    fields[#fields + 1] = payer_field(one[AUTHORIZE.payer])
    swept = swept + one[AUTHORIZE.swept]
    local pools = proposed and proposed[OFFER.pools] or {}
    for n = 1, #pools do
      fields[#fields + 1] = pool_field(pools[n][POOL_OFFER.pool])
      local closed_by = pools[n][POOL_OFFER.closed_by]
      if closed_by ~= '' then fields[#fields + 1] = pool_field(closed_by) end
    end
  end
  fetch(ACCOUNTS, fields)
  fetch_calls(commands)
  sweep(swept, commands[1][AUTHORIZE.ended_retention])
end

-- Refuses, or grants.
local function authorize(this, opaque)
  command, context, id, offer = this, opaque, this[AUTHORIZE.call], offer_of(this)
  local known = read(CALLS, id)
  if known then return authorize_again(known) end
  if command[AUTHORIZE.proposal] == 'record' then return grant() end
  local tenant, payer = tenant_account(), payer_account(command[AUTHORIZE.payer])
  if tenant[TENANT_ACCOUNT.version] ~= command[AUTHORIZE.tenant_version]
    or (payer and payer[PAYER_ACCOUNT.version] or 0) ~= command[AUTHORIZE.payer_version] then
    return reply('stale')
  end
  if command[AUTHORIZE.proposal] == 'refuse' then
    return deny(command[AUTHORIZE.refusal], command[AUTHORIZE.nuance])
  end
  if now < offer[OFFER.month_starts] or now >= offer[OFFER.month_ends] then return reply('stale') end
  local refusal, nuance = check_limits(tenant, payer)
  if refusal == 'RATE_LIMITED' then
    note_refusal('RATE_LIMITED')
    return reply('rate_limited')
  end
  if refusal then return deny(refusal, nuance) end
  return grant()
end

return carry_out(ARGV, prepare, authorize)
