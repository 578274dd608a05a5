-- answer: the call was answered; its hold moves from the ringing to the in-call expiry.
--
-- KEYS[1] accounts: counters of the tenant and the payers, and the pools
-- KEYS[2] lots: the wallet and its lots
-- KEYS[3] calls: every call that is not forgotten
-- KEYS[4] deadlines: open calls by expiry
-- KEYS[5] retained: other calls by the instant at which they are forgotten
-- KEYS[6] journal: everything that happened
-- ARGV[1] the clock (see read_clock)
-- ARGV[2] the packed fields of ANSWER
-- ARGV[3] nothing
-- and so on: a command and its bytes in turn
--
-- Answers for each command [tag, now, detail], and the call beside it:
--   not_found: no such call
--   denied: the call was refused
--   standing: where the call stands now
--   repeated: the same, it was answered before
--
-- Keeps: the earliest answer counts; an answer proves one second.

local ANSWER = { call = 1 }

ACCOUNTS, LOTS, CALLS, DEADLINES, RETAINED, JOURNAL = unpack(KEYS)
now = read_clock(ARGV[1])

local function answer(command)
  local id = command[ANSWER.call]

  -- Read, refuse.
  local call = read(CALLS, id)
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

return carry_out(ARGV, fetch_calls_and_accounts, answer)
