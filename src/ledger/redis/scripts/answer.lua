-- answer: the call was answered; its hold moves from the ringing to the in-call expiry.
--
-- FIELDS those of ANSWER
-- OPAQUE nothing
--
-- Answers for each command [tag, now, detail], and the call beside it:
--   not_found: no such call
--   denied: the call was refused
--   standing: where the call stands now
--   repeated: the same, it was answered before
--
-- Keeps: the earliest answer counts; an answer proves one second.

local ANSWER = { call = 1 }

local function answer(command)
  local id = command[ANSWER.call]

  -- Read, refuse.
  local call = read_call(id)
  if not call then return reply('not_found') end
  local state = call[CALL.state]
  if state == STATE.denied then return reply('denied', id) end
  if state == STATE.answered then return reply('repeated', id) end
  if state ~= STATE.ringing and state ~= STATE.expired then return reply('standing', id) end

  -- Then write.
  if state == STATE.expired then reopen(id, call, call[CALL.granted]) end
  mark_answered(call)
  call[CALL.used] = math.max(call[CALL.used], 1)
  list_open(id, call, in_call_deadline(call))
  return reply('standing', id)
end

wants_of[VERB.answer], decides[VERB.answer] = want_accounts_of, answer
arguments_of[VERB.answer] = 2
