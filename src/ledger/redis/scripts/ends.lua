-- ends: the same as calls, for commands that all end a call: also where the store has no memory left.
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
-- ARGV[2] of each command the number of its verb in VERB, a byte each
-- ARGV[3] the packed FIELDS of the first command, behind them its OPAQUE bytes and what else its verb's script names, and so on
--
-- Answers the instant, then for each command what the script of its verb says.
--
-- Keeps: what that keeps.

ACCOUNTS, SIZES, POOLS, LOTS, CALLS, DEADLINES, RETAINED, JOURNAL = unpack(KEYS)
now = read_clock(ARGV[1])

return carry_out(ARGV)
