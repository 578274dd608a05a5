-- report_recharge: what became of a recharge that was asked for.
--
-- KEYS[1] lots: the wallet and its lots
-- KEYS[2] journal: everything that happened
-- ARGV[1] the packed fields of REPORT_RECHARGE; reason is of a failure, the instants are of a success
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, count]; count says nothing:
--   applied: recorded; of a success, the lot is in the wallet
--   replayed: the same was reported before
--   succeeded_before: a failure of a recharge that has succeeded; nothing changed
--   not_found: no such request
--   wallet_full: the wallet would be above what sums are exact for; nothing changed
--
-- Keeps: each key makes one lot, also after it was reported failed: money that arrived is not lost.

local REPORT_RECHARGE = { key = 1, succeeded = 2, reason = 3, bought_at = 4, expires_at = 5 }

LOTS, JOURNAL = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local key, succeeded = command[REPORT_RECHARGE.key], command[REPORT_RECHARGE.succeeded]

-- Read, refuse.
fetch(LOTS, { 'w', 'r:' .. key, 'l:' .. key })
local request, recharge = read(LOTS, 'r:' .. key), wallet()[WALLET.recharge][1]
if not request or not recharge then
  if not lot(key) or not string.find(key, '^recharge%.%d+$') then return reply_plainly('not_found') end
  return reply_plainly(succeeded and 'replayed' or 'succeeded_before')
end
if not succeeded and request[RECHARGE_REQUEST.failed] then return reply_plainly('replayed') end
local amount = request[RECHARGE_REQUEST.amount]
if succeeded and unspent(true) + amount > MAX_MONEY then return reply_plainly('wallet_full') end

-- Then write.
if not succeeded then
  fail_recharge(recharge, key, request, command[REPORT_RECHARGE.reason])
  return reply_plainly('applied')
end
succeed_recharge(recharge, key, request)
add_lot('recharge_succeeded', key, amount, command[REPORT_RECHARGE.bought_at],
  command[REPORT_RECHARGE.expires_at], decimal(amount))
-- Still below: that is another crossing.
judge_recharge()
note_alerts()
return reply_plainly('applied')
