-- adjust_settlement: corrects the usage of a settled call, and what it was charged (D19).
--
-- KEYS[1] accounts: counters of the tenant and the payers, and the pools
-- KEYS[2] lots: the wallet and its lots
-- KEYS[3] calls: every call that is not forgotten
-- KEYS[4] journal: everything that happened
-- KEYS[5] adjustments: every correction by its key
-- ARGV[1] the packed fields of ADJUST_SETTLEMENT
-- ARGV[2] the clock (see read_clock)
-- ARGV[3] the report: opaque bytes, kept with the journal entry
--
-- Answers [tag, now, entries, number], an entry without its context where there is one:
--   applied: the entry is in the journal
--   replayed: the same correction was applied before, with this entry
--   conflict: the key was used for another correction; nothing changed, here and below
--   not_found: no such call
--   not_settled: the number is the state of the call
--   unchanged: the call is recorded with that usage already
--   stale: the call has another usage or charge than the caller has seen
--
-- Keeps: each key is applied once; upwards at most what is left is taken, in funding order; downwards
-- nothing is taken, and what was charged goes back the way it came.

local ADJUST_SETTLEMENT = { key = 1, fingerprint = 2, call = 3, used = 4, over_used = 5, over_money = 6 }

ACCOUNTS, LOTS, CALLS, JOURNAL, ADJUSTMENTS = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local key, fingerprint = command[ADJUST_SETTLEMENT.key], command[ADJUST_SETTLEMENT.fingerprint]
local id, used = command[ADJUST_SETTLEMENT.call], command[ADJUST_SETTLEMENT.used]

-- Read, refuse.
local known = read(ADJUSTMENTS, key)
if known then
  if known[ADJUSTMENT.fingerprint] ~= fingerprint then return adjust_reply('conflict') end
  return adjust_reply('replayed', known[ADJUSTMENT.entry])
end
local call = read_call(id)
if not call then return adjust_reply('not_found') end
if call[CALL.state] ~= STATE.settled then
  return adjust_reply('not_settled', nil, call[CALL.state])
end
local _, spent = money_sums(call)
local before = call[CALL.used]
if before ~= command[ADJUST_SETTLEMENT.over_used]
  or spent ~= command[ADJUST_SETTLEMENT.over_money] then
  return adjust_reply('stale')
end
if before == used then return adjust_reply('unchanged') end
fetch_accounts_of(call)

-- Then write.
local short = call[CALL.shortfall_money]
call[CALL.used] = used
local postings = settle_lines(call, used, used < before)
owe(call[CALL.shortfall_money] - short)
put(CALLS, id, call)
local entry = note_call('adjusted', id, call, postings, ARGV[3])
local kept = remember(key, fingerprint, entry)
save()
return adjust_reply('applied', kept)
