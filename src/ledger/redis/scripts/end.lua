-- end: charges what a call used, and gives back everything else that it holds.
--
-- FIELDS those of END; how is settle, release or proven
-- OPAQUE the report, kept with the journal entry
--
-- Answers for each command [tag, now, detail], and the call beside it; _again where the end was reported before:
--   settled: charged
--   settled_again: the same
--   already_settled_again: charged before, with another usage; the recorded values stand
--   released: nothing charged, everything given back
--   released_again: the same
--   parked: usage without a grant is recorded, nothing charged
--   parked_again: the same
--   answered_already: a release after the answer; nothing changed
--   not_open: proven only; no such open call
--   unknown: no known call, and it may be one that the ledger has lost; nothing changed
--
-- Keeps: a call is charged once, at most what is available, the rest is an explicit shortfall; the
-- charge is never below the proven usage, and what was presumed at an expiry falls to what is settled.

local END = { call = 1, how = 2, used = 3, ended_retention = 4, has_grant = 5 }

local function finish(command, report)
  local id, how, used = command[END.call], command[END.how], command[END.used]
  local keep = now + command[END.ended_retention] * 1000

  -- Read, refuse.
  local call = read_call(id)
  if how == 'proven' and not (call and is_open(call)) then return reply('not_open') end
  if not call and command[END.has_grant] then return reply('unknown') end
  if not call then
    -- Ended before it was authorized: a late authorize finds this and holds nothing.
    call = tombstone()
    retain(id, call, keep)
    if used <= 0 then return reply('released', id) end
    park(id, call, used, report)
    return reply('parked', id)
  end
  local state = call[CALL.state]
  if state == STATE.ended and call[CALL.parked] > 0 then return reply('parked_again', id) end
  if state == STATE.denied or state == STATE.ended then
    if used <= 0 then return reply('released_again', id) end
    if used <= call[CALL.parked] then return reply('parked_again', id) end
    retain(id, call, keep)
    park(id, call, used, report)
    return reply('parked', id)
  end
  if state == STATE.answered and how == 'release' then return reply('answered_already', id) end
  if state == STATE.settled then
    local same = used <= 0 or used == call[CALL.used] or used == call[CALL.settle_used]
    return reply(same and 'settled_again' or 'already_settled_again', id)
  end
  local presumed, was_open = how == 'settle' and call[CALL.presumed] > 0, is_open(call)
  if not was_open and used <= 0 and not presumed then
    local charged = state == STATE.expired and call[CALL.used] + call[CALL.presumed] > 0
    return reply(charged and 'settled_again' or 'released_again', id)
  end

  -- Then write.
  if state == STATE.ringing and used <= 0 then
    settle_call('released', id, call, 0, report)
    call[CALL.settle_used] = 0
    close(id, call, STATE.released, keep)
    return reply('released', id)
  end
  if how == 'proven' then
    -- As an expiry: a true report that comes later is charged the difference.
    settle_call('expired', id, call, call[CALL.used], report)
    close(id, call, STATE.expired, keep)
    return reply('settled', id)
  end
  if used > call[CALL.used] then call[CALL.used] = used end
  call[CALL.settle_used] = used
  local kind = was_open and 'settled' or 'settled_late'
  local given_back = take_back_presumed(call)
  if given_back then
    note_call(kind, id, call, given_back, report)
  else
    settle_call(kind, id, call, call[CALL.used], report)
  end
  owe(call[CALL.shortfall_money])
  if was_open then
    close(id, call, STATE.settled, keep)
  else
    call[CALL.state] = STATE.settled
    call[CALL.ended_at] = now
    retain(id, call, keep)
  end
  return reply('settled', id)
end

wants_of[VERB.finish], decides[VERB.finish] = want_accounts_of, finish
arguments_of[VERB.finish] = 2
