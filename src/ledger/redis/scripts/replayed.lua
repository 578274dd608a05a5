-- replayed: what a sidecar was acknowledged and the ledger had lost is there again, as far as it can be.
--
-- KEYS[1] sequence: how far the ledger has come, for each sidecar
-- ARGV[1] the packed fields of REPLAYED
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, count]; count says nothing:
--   cleared: nothing is missing any more
--   moved: something else is missing by now; nothing changed
--
-- Keeps: what was lost meanwhile is not taken for replayed.

local REPLAYED = { sidecar = 1, lost = 2 }

SEQUENCE = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local missing = 'l:' .. command[REPLAYED.sidecar]

-- Read, refuse.
if redis.call('HGET', SEQUENCE, missing) ~= command[REPLAYED.lost] then
  return cmsgpack.pack({ 'moved', now, 0 })
end

-- Then write.
redis.call('HDEL', SEQUENCE, missing)
return cmsgpack.pack({ 'cleared', now, 0 })
