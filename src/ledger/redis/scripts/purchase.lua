-- purchase: adds a lot to the wallet.
--
-- KEYS[1] lots: the wallet and its lots
-- KEYS[2] journal: everything that happened
-- ARGV[1] the packed fields of PURCHASE
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, count]; count says nothing:
--   applied: the lot is in the wallet
--   replayed: the same purchase was applied before
--   conflict: the key was used for another amount or instant, or is overage's; nothing changed
--
-- Keeps: each key is applied once; the live lots stand in the order in which they were bought.

local PURCHASE = { lot = 1, amount = 2, purchased_at = 3, expires_at = 4, context = 5 }

LOTS, JOURNAL = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local id, amount = command[PURCHASE.lot], command[PURCHASE.amount]
local starts = command[PURCHASE.purchased_at]

-- Read, refuse.
local known = lot(id)
if is_overage(id) then return cmsgpack.pack({ 'conflict', now, 0 }) end
if known then
  local same = known[BUCKET.funded] == amount and known[BUCKET.starts] == starts
  return cmsgpack.pack({ same and 'replayed' or 'conflict', now, 0 })
end
local live = live_lots()

-- Then write.
put(LOTS, 'l:' .. id, { amount, 0, 0, 0, 0, 0, starts, command[PURCHASE.expires_at], 0 })
local place = 1
while live[place] do
  local other = lot(live[place])
  local bought = other and other[BUCKET.starts] or 0
  if starts < bought or (starts == bought and precedes(id, live[place])) then break end
  place = place + 1
end
if amount > 0 then
  table.insert(live, place, id)
  put(LOTS, 'w', wallet())
end
note_lot('purchased', id, posting('l:' .. id, amount, 0, 0, 0), command[PURCHASE.context])
save()
return cmsgpack.pack({ 'applied', now, 0 })
