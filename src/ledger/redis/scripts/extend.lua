-- extend: records usage since answer, and holds more so that the call can go on.
--
-- FIELDS those of EXTEND; sequence is an array of nothing or one
-- OPAQUE nothing
--
-- Answers for each command [tag, now, detail], and the call beside it:
--   not_found: no such call
--   denied: the call was refused; the usage is recorded as unauthorized
--   ended: the call is over
--   granted: the grant in force
--   repeated: the same, the report was an old one
--   stopped: usage is recorded, nothing is granted; detail is the decision
--
-- Keeps: usage never falls; a grant never shrinks; what is held never exceeds what is available.

local EXTEND = { call = 1, used = 2, sequence = 3, requested = 4 }

local function stopped(call)
  if tenant_account()[TENANT_ACCOUNT.suspended] then return 'TENANT_SUSPENDED' end
  local payer = payer_account(call[CALL.payer])
  if payer and (payer[PAYER_ACCOUNT.blocked] or payer[PAYER_ACCOUNT.barred]) then
    return 'FRAUD_SUSPECTED'
  end
end

local function extend(command)
  local id, used, sequence = command[EXTEND.call], command[EXTEND.used], command[EXTEND.sequence][1]

  -- Read.
  local call = read_call(id)
  if not call then return reply('not_found') end

  -- Refuse.
  local state = call[CALL.state]
  if state == STATE.denied then
    park(id, call, used)
    return reply('denied', id)
  end
  if not is_open(call) and state ~= STATE.expired then return reply('ended', id) end
  local stop = stopped(call)
  local is_old = sequence and sequence <= call[CALL.sequence]
  if is_old and is_open(call) then
    if used > call[CALL.used] then call[CALL.used] = used end
    if call[CALL.state] == STATE.ringing and call[CALL.used] > 0 then
      mark_answered(call)
      list_open(id, call, in_call_deadline(call))
    end
    put(CALLS, id, call)
    return reply('repeated', id)
  end
  if stop and not is_open(call) then return reply('stopped', id, stop) end

  -- Then write.
  if sequence and sequence > call[CALL.sequence] then call[CALL.sequence] = sequence end
  if used > call[CALL.used] then call[CALL.used] = used end
  if stop then
    mark_answered(call)
    put(CALLS, id, call)
    return reply('stopped', id, stop)
  end
  local target = call[CALL.used] + command[EXTEND.requested]
  if state == STATE.expired then
    reopen(id, call, target)
  else
    local postings, field, added = lengthen(call, target)
    if postings then
      note_call('extended', id, call, postings)
    else
      note_one('extended', id, call, field, added, 0, '')
    end
  end
  mark_answered(call)
  list_open(id, call, in_call_deadline(call))
  return reply('granted', id)
end

wants_of[VERB.extend], decides[VERB.extend] = want_accounts_of, extend
arguments_of[VERB.extend] = 2
