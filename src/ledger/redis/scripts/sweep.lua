-- sweep: expires due holds, forgets old calls, lapses due lots.
--
-- KEYS[1] accounts: counters of the tenant and the payers, and the pools
-- KEYS[2] lots: the wallet and its lots
-- KEYS[3] calls: every call that is not forgotten
-- KEYS[4] deadlines: open calls by expiry
-- KEYS[5] retained: other calls by the instant at which they are forgotten
-- KEYS[6] journal: everything that happened
-- ARGV[1] the packed fields of SWEEP
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, expired, forgotten, lapsed]:
--   swept: so many of each
--
-- Keeps: at most `most` holds and calls a run, so that nobody waits long; an expired hold is charged
-- what was proven, or granted where its terms say so. A recharge that was waited for is asked for.

local SWEEP = { most = 1, ended_retention = 2 }

ACCOUNTS, LOTS, CALLS, DEADLINES, RETAINED, JOURNAL = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])

-- Moves what nobody holds of a lapsed lot to expired (rule 47); how many lots that were.
local function lapse()
  local lapsed = 0
  for _, id in ipairs(live_lots()) do
    local bucket = lot(id)
    local rest = bucket and bucket[BUCKET.ends] <= now and available(bucket) or 0
    if rest > 0 then
      bucket[BUCKET.expired] = bucket[BUCKET.expired] + rest
      put(LOTS, 'l:' .. id, bucket)
      note_lot('lot_expired', id, posting('l:' .. id, 0, 0, 0, rest), '')
      lapsed = lapsed + 1
    end
  end
  drop_empty_lots()
  judge_recharge()
  note_alerts()
  return lapsed
end

-- Read, then write.
local expired, forgotten = sweep(command[SWEEP.most], command[SWEEP.ended_retention])
local lapsed = lapse()
save()
return cmsgpack.pack({ 'swept', now, expired, forgotten, lapsed })
