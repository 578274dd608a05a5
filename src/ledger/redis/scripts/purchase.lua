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
-- Keeps: each key is applied once; the live lots stand in the order in which they were bought; what
-- earlier calls fell short of is paid first, where the tenant says so.

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

-- Then write.
add_lot('purchased', id, amount, starts, command[PURCHASE.expires_at], command[PURCHASE.context])
save()
return cmsgpack.pack({ 'applied', now, 0 })
