-- regressed: a sidecar has found the ledger below what it was acknowledged (see ledger/marks.rs).
--
-- KEYS[1] journal: everything that happened
-- KEYS[2] sequence: how far the ledger has come, for each sidecar
-- ARGV[1] the packed fields of REGRESSED
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, [epoch, above, last]]:
--   raised: this one is the first to find it: the epoch is one higher for all
--   known: another one has raised the epoch since this one was acknowledged anything
--   standing: nothing is missing, or it was said before; nothing changed
--
-- Keeps: epoch and sequences only grow; one entry for each raised epoch; what is missing stands until it
-- is replayed.

local REGRESSED = { sidecar = 1, epoch = 2, sequence = 3, keeps = 4, about = 5 }

JOURNAL, SEQUENCE = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local field, missing = 's:' .. command[REGRESSED.sidecar], 'l:' .. command[REGRESSED.sidecar]
local known_epoch, known = command[REGRESSED.epoch], command[REGRESSED.sequence]
local epoch = tonumber(redis.call('HGET', SEQUENCE, 'e') or 0)
local of, found = unpacked_mark(tonumber(redis.call('HGET', SEQUENCE, field) or 0))

local function mark_reply(tag, of_epoch, above, last)
  return cmsgpack.pack({ tag, now, { of_epoch, above, last } })
end

-- Read, refuse.
if found >= known and of >= known_epoch then return mark_reply('standing', of, found, found) end

-- Then write.
local raises = epoch <= known_epoch
if raises then
  epoch = known_epoch + 1
  note_regressed(command[REGRESSED.about])
  save()
  local marks = redis.call('HGETALL', SEQUENCE)
  for i = 1, #marks, 2 do
    if string.sub(marks[i], 1, 2) == 's:' then
      local _, sequence = unpacked_mark(tonumber(marks[i + 1]))
      redis.call('HSET', SEQUENCE, marks[i], packed_mark(epoch, sequence))
    end
  end
  redis.call('HSET', SEQUENCE, 'e', epoch)
end
redis.call('HSET', SEQUENCE, field, packed_mark(epoch, math.max(found, known)))
local above, last = math.min(found, known), known
local before = redis.call('HGET', SEQUENCE, missing)
if before then
  local lower, upper = string.match(before, '^(%d+):(%d+)$')
  above, last = math.min(above, tonumber(lower)), math.max(last, tonumber(upper))
end
if command[REGRESSED.keeps] then
  redis.call('HSET', SEQUENCE, missing, string.format('%.0f:%.0f', above, last))
end
return mark_reply(raises and 'raised' or 'known', epoch, above, last)
