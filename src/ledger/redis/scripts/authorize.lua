-- authorize: decides a call, and holds what it may cost.
--
-- FIELDS those of AUTHORIZE; payer is the field of its account
-- OPAQUE the context, kept with the call and its entry
-- SHARED the packed fields of BASIS, and behind them those of SHAPE and of OFFER unless it is a refusal; nothing where they
-- are those of the authorize before it in the run
-- CALL the call as it stands where it is decided as proposed and its first pool has all that it asks for: without its
-- instants, its shape and its context
-- ENTRY its entry, without the instant
--
-- Answers for each command [tag, now, detail], and the call beside it:
--   as_proposed: decided now; the call is that of CALL, and not shown
--   decided: now; the call is ringing or denied
--   replayed: before, with the same payload
--   conflict: the key was used with another payload; the call is as it was
--   ended: the call of this key is over
--   rate_limited: too many calls this second; no call is stored
--   stale: a version or the month moved on; nothing is decided
--
-- Keeps: one journal entry for each decision; what is held never exceeds what is available; a stored
-- decision never changes. Where a call is known already, is refused by a limit on calls, or would get less than it asks
-- for, due holds expire first, each complete in itself, so that what they give back is seen.

local AUTHORIZE = { call = 1, payer = 2, payer_version = 3 }
local BASIS = { tenant_version = 1, denied_retention = 2, ended_retention = 3, swept = 4, proposal = 5 }
local OFFER = { decision = 1, month_starts = 2, month_ends = 3, requested = 4, families = 5, payer_calls = 6, tenant_calls = 7, calls_per_second = 8, when_exhausted = 9, when_spend_limited = 10, when_velocity_limited = 11 }

-- The command in hand: each is decided as if it had come alone.
local command, context, id, proposed_call, proposed_entry, basis, offer, shape, unpacked, is_swept

local basis_of
do
  -- What commands rest on, by its bytes: many are made the same offer, so that it is unpacked once. Bytes always mean the
  -- same; nothing in it may be changed.
  local bases, bases_known = {}, 0

  -- That of the authorize before, in the same run: the first of a run always brings its own.
  local last

  local function unpacked_basis(bytes)
    if bases_known >= 256 then bases, bases_known = {}, 0 end
    local its_basis, its_shape, its_offer, rest, _
    its_basis, rest = unpack_array(bytes)
    its_shape = ''
    if rest > 0 then
      local behind = string.sub(bytes, rest + 1)
      _, rest = unpack_array(behind)
      its_shape = string.sub(behind, 1, rest)
      its_offer = unpack_array(string.sub(behind, rest + 1))
    end
    local found = {
      basis = its_basis, shape = its_shape, unpacked = unpacked_shape(its_shape), offer = its_offer,
    }
    bases[bytes], bases_known = found, bases_known + 1
    return found
  end

  function basis_of(bytes)
    if bytes ~= '' then last = bases[bytes] or unpacked_basis(bytes) end
    return last
  end
end

-- A call of this command that is decided otherwise than proposed, or not with all that it asks for; nothing is held yet. A
-- refusal has no shape.
local function new_call(state, decision, its_shape)
  local call = unpack_call(write_fixed(INSTANTS, now, 0) .. proposed_call .. shape .. context)
  return fresh_call(state, identity_of(call), decision, call[CALL.payer], context, its_shape)
end

-- Expires what is due, so that what it holds is seen: once a command, and only where that matters. Whether that
-- may change anything.
local function expire_due()
  if is_swept then return false end
  is_swept = true
  return sweep(basis[BASIS.swept], basis[BASIS.ended_retention]) > 0
end

-- A decision that leaves the call of its key as it is.
local function note_refusal(decision)
  note_call('refused', id, new_call(STATE.denied, decision, ''), {})
  count_decision()
end

local function deny(decision, nuance)
  local call = new_call(STATE.denied, decision, '')
  call[CALL.nuance] = nuance
  retain(id, call, now + basis[BASIS.denied_retention] * 1000)
  note_call('refused', id, call, {})
  count_decision()
  return reply('decided', id)
end

-- Keeps the call as it was proposed, and its entry, neither of which is unpacked for that; counts what `open` and
-- `count_decision` would.
local function keep_as_proposed(list, deadline, is_counted)
  keep_packed(id, list, deadline, proposed_call, proposed_entry, shape, context)
  local tenant = is_counted and count_one(command[AUTHORIZE.payer], 1) or tenant_account()
  tenant[TENANT_ACCOUNT.decisions] = tenant[TENANT_ACCOUNT.decisions] + 1
  put(ACCOUNTS, 't', tenant)
end

local unopened_pools
do
  local NONE = {}

  -- The pools of the call that do not exist yet, as they would be opened.
  function unopened_pools(pools)
    local are_open = true
    for i = 1, #pools do
      if not read(ACCOUNTS, pools[i].field) then are_open = false end
    end
    if are_open then return NONE, NONE end
    local unopened, families, new_pools = {}, {}, {}
    for i = 1, #pools do
      if not read(ACCOUNTS, pools[i].field) then
        unopened[#unopened + 1] = pools[i][POOL_SHAPE.pool]
        families[#families + 1] = offer[OFFER.families][i]
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
end

-- Keeps an open pool valid throughout the month, also where a new time zone of the tenant has moved the
-- month's ends since it was made.
local function cover_month(field, bucket, starts, ends)
  if bucket[BUCKET.starts] > starts or bucket[BUCKET.ends] < ends then
    bucket[BUCKET.starts] = math.min(bucket[BUCKET.starts], starts)
    bucket[BUCKET.ends] = math.max(bucket[BUCKET.ends], ends)
    put(ACCOUNTS, field, bucket)
  end
end

-- When a call expires that nobody answers, or whose answer nobody tells.
local function first_deadline(terms, granted)
  local life = terms[TERMS.ringing]
  if not terms[TERMS.reports_answer] then life = life + granted + terms[TERMS.grace] end
  return now + life * 1000
end

-- Whether the call holds everything that it asks for now, as it was proposed.
local function holds_as_proposed()
  if unpacked[SHAPE.terms][TERMS.free] then return true end
  local added, bucket = hold_plenty(unpacked, offer[OFFER.requested], 0, 0)
  if not added then return false end
  cover_month(
    unpacked[SHAPE.pools][1].field, bucket, offer[OFFER.month_starts], offer[OFFER.month_ends])
  return true
end

-- Opens the call, and holds what it may cost.
local function grant()
  local requested, terms, pools = offer[OFFER.requested], unpacked[SHAPE.terms], unpacked[SHAPE.pools]
  if holds_as_proposed() then
    keep_as_proposed(deadlines, first_deadline(terms, requested), terms[TERMS.counted])
    return reply('as_proposed')
  end
  local call = new_call(STATE.ringing, offer[OFFER.decision], shape)
  local unopened, new_pools = unopened_pools(pools)
  local added_to, added_money, covered, reach =
    reserve(requested, pool_sides(call, new_pools), credit_side(call))
  if reach ~= REACH.full and expire_due() then
    added_to, added_money, covered, reach =
      reserve(requested, pool_sides(call, new_pools), credit_side(call))
  end
  if covered <= 0 then
    local decision = offer[OFFER.when_exhausted]
    if reach == REACH.spend_limit then decision = offer[OFFER.when_spend_limited] end
    if reach == REACH.velocity then decision = offer[OFFER.when_velocity_limited] end
    return deny(decision, NUANCE.none)
  end
  for _, pool in ipairs(unopened) do
    put(ACCOUNTS, 'p:' .. pool, new_pools[pool])
    opened_pools[#opened_pools + 1] = pool
  end
  for i = 1, #pools do
    local field = pools[i].field
    cover_month(
      field, read(ACCOUNTS, field), offer[OFFER.month_starts], offer[OFFER.month_ends])
  end
  call[CALL.granted] = covered < requested and covered or requested
  call[CALL.reach] = reach
  local postings = hold(call, added_to, added_money)
  open(id, call, first_deadline(terms, call[CALL.granted]))
  note_call('authorized', id, call, postings)
  count_decision()
  return reply('decided', id)
end

-- A call that was granted without the ledger, and whose key the ledger knows: its repeat, or its end
-- that overtook it. Anything else keeps the record and leaves the call as it is.
local function record_again(was)
  local decision = offer[OFFER.decision]
  if was[CALL.state] ~= STATE.ended then
    local again = new_call(STATE.ringing, decision, '')
    local same = fingerprint_of(was) == fingerprint_of(again)
    if same and was[CALL.decision] == decision then return reply('replayed', id) end
    if same and was[CALL.state] == STATE.denied then
      -- A refusal that came too late to be told: the client has the grant.
      retained[id] = false
      return grant()
    end
    note_call('authorized', id, again, {})
    count_decision()
    return reply('conflict')
  end
  local call = new_call(STATE.released, decision, shape)
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
  if basis[BASIS.proposal] == 'record' then return record_again(call) end
  local again = new_call(STATE.denied, '', '')
  if state ~= STATE.ended and fingerprint_of(call) ~= fingerprint_of(again) then
    note_refusal('KEY_CONFLICT')
    return reply('conflict')
  end
  if state == STATE.denied or is_open(call) then return reply('replayed', id) end
  note_refusal('CALL_ALREADY_ENDED')
  return reply('ended')
end

-- Counts the call towards those of this second, of which there is a limit; whether there are too many.
local function is_too_fast(tenant)
  local most = offer[OFFER.calls_per_second]
  local second = (now - now % 1000) / 1000
  if tenant[TENANT_ACCOUNT.second] ~= second then
    tenant[TENANT_ACCOUNT.second] = second
    tenant[TENANT_ACCOUNT.calls_in_second] = 0
    put(ACCOUNTS, 't', tenant)
  end
  if tenant[TENANT_ACCOUNT.calls_in_second] >= most then return true end
  tenant[TENANT_ACCOUNT.calls_in_second] = tenant[TENANT_ACCOUNT.calls_in_second] + 1
  put(ACCOUNTS, 't', tenant)
  return false
end

-- The nuance by which the payer or the tenant has too many calls; nil where neither has.
local function too_many_calls()
  local of_payer, of_tenant = offer[OFFER.payer_calls], offer[OFFER.tenant_calls]
  local payer = of_payer >= 0 and read(ACCOUNTS, command[AUTHORIZE.payer])
  if of_payer >= 0 and (payer and payer[PAYER_ACCOUNT.open] or 0) >= of_payer then
    return NUANCE.none
  end
  if of_tenant >= 0 and tenant_account()[TENANT_ACCOUNT.open] >= of_tenant then
    return NUANCE.of_tenant
  end
end

-- Notes what the command needs; what it rests on.
local function want_accounts(accounts, asked, _, bytes)
  want(accounts, asked[AUTHORIZE.payer])
  local found = basis_of(bytes)
  want_pools(accounts, found.unpacked[SHAPE.pools])
  return found
end

-- Refuses, or grants.
local function authorize(this, opaque, its_basis, its_call, its_entry)
  command, context, id, is_swept = this, opaque, this[AUTHORIZE.call], false
  proposed_call, proposed_entry = its_call, its_entry
  basis, offer = its_basis.basis, its_basis.offer
  shape, unpacked = its_basis.shape, its_basis.unpacked
  local known = read_call(id)
  if known then
    expire_due()
    known = read_call(id)
  end
  if known then return authorize_again(known) end
  if basis[BASIS.proposal] == 'record' then return grant() end
  local tenant, payer = tenant_account(), read(ACCOUNTS, command[AUTHORIZE.payer])
  if tenant[TENANT_ACCOUNT.version] ~= basis[BASIS.tenant_version]
    or (payer and payer[PAYER_ACCOUNT.version] or 0) ~= command[AUTHORIZE.payer_version] then
    return reply('stale')
  end
  if basis[BASIS.proposal] == 'refuse' then
    keep_as_proposed(retained, now + basis[BASIS.denied_retention] * 1000, false)
    return reply('as_proposed')
  end
  if now < offer[OFFER.month_starts] or now >= offer[OFFER.month_ends] then return reply('stale') end
  if offer[OFFER.calls_per_second] >= 0 and is_too_fast(tenant) then
    note_refusal('RATE_LIMITED')
    return reply('rate_limited')
  end
  local nuance = too_many_calls()
  if nuance and expire_due() then nuance = too_many_calls() end
  if nuance then return deny('CONCURRENCY_LIMIT', nuance) end
  return grant()
end

wants_of[VERB.authorize], decides[VERB.authorize] = want_accounts, authorize
arguments_of[VERB.authorize] = 5
