-- Where each field stands in the stored arrays: the field order of the Rust structs of the same names
-- in ledger/state.rs, ledger/redis/stored.rs and charging/rating.rs, which a test compares. `scripts.rs`
-- folds these tables into the text of a script, so that `call[CALL.used]` costs what `call[16]` does. Those of a call stand as
-- `unpack_call` arranges them, its texts first.
local CALL = { payer = 1, decision = 2, shape = 3, context = 4, texts = 5, money = 6, authorized_at = 7, deadline = 8, lines = 9, state = 10, nuance = 11, reach = 12, answered_at = 13, ended_at = 14, sequence = 15, used = 16, settle_used = 17, granted = 18, granted_from = 19, money_duration = 20, shortfall_duration = 21, shortfall_money = 22, parked = 23, presumed = 24, money_length = 25, held = 26, spent = 27 }
local SHAPE = { terms = 1, pools = 2, money = 3 }
local POOL_SHAPE = { pool = 1, closed_by = 2, increment = 3 }
local MONEY_SHAPE = { tariff = 1, spend_limit = 2, month = 3, overage = 4, velocity = 5 }
local MONEY_TAKEN = { lots = 1, width = 2, slots = 3 }
local TERMS = { reports_answer = 1, free = 2, counted = 3, charge_granted_when_lost = 4, ringing = 5, grace = 6, longest = 7 }
local LOT_LINE = { lot = 1, held = 2, spent = 3 }
local MONEY_LINE = { tariff = 1, spend_limit = 2, month = 3, lots = 4, overage = 5, velocity = 6 }
local VELOCITY_LINE = { most = 1, width = 2, slots = 3 }
local SPEND_RING = { width = 1, slots = 2 }
local SLOT = { number = 1, money = 2 }
local TARIFF = { rate_per_minute = 1, connection_fee = 2, initial_increment = 3, increment = 4 }
local BUCKET = { funded = 1, adjusted = 2, held = 3, spent = 4, expired = 5, holds = 6, starts = 7, ends = 8, alerted = 9 }
local WALLET = { holds = 1, live = 2, recharge = 3, owed = 4, deduct_shortfall = 5 }
local RECHARGE = { terms = 1, requests = 2, in_flight = 3, failures = 4, not_before = 5, day = 6, requested = 7 }
local RECHARGE_TERMS = { trigger = 1, amount = 2, daily_cap = 3, on_available = 4 }
local RECHARGE_REQUEST = { amount = 1, requested_at = 2, failed = 3 }
local TENANT_ACCOUNT = { version = 1, suspended = 2, open = 3, second = 4, calls_in_second = 5, decisions = 6 }
local PAYER_ACCOUNT = { version = 1, blocked = 2, open = 3, month = 4, held = 5, spent = 6, barred = 7 }
local ENTRY = { kind = 1, at = 2, subject = 3, payer = 4, decision = 5, used = 6, granted = 7, shortfall_duration = 8, shortfall_money = 9, postings = 10, context = 11, report = 12 }
local POSTING = { bucket = 1, funded = 2, held = 3, spent = 4, expired = 5, adjusted = 6 }
local ADJUSTMENT = { fingerprint = 1, entry = 2 }
local READER = { owner = 1, ends = 2, since = 3, cursor = 4 }
local UPKEEP_STATE = { token = 1, lease_ends = 2, trimmed = 3, erased = 4, rewrites = 5 }
-- Verbs of calls, call states and reasons for the end of a reservation, by their stored numbers.
local VERB = { authorize = 1, answer = 2, extend = 3, finish = 4, restore = 5 }
local STATE = { denied = 0, ringing = 1, answered = 2, settled = 3, released = 4, expired = 5, ended = 6 }
local REACH = { full = 0, shared = 1, exhausted = 2, spend_limit = 3, velocity = 4 }
local NUANCE = { none = 0, too_short = 1, of_tenant = 2 }
