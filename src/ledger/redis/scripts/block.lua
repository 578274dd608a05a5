-- block: blocks a payer apart from what was applied, or lifts that block.
--
-- KEYS[1] accounts: counters of the tenant and the payers, and the pools
-- KEYS[2] blocks: the blocks that stand
-- KEYS[3] journal: everything that happened
-- ARGV[1] the packed fields of SET_BLOCK
-- ARGV[2] the clock (see read_clock)
--
-- Answers [tag, now, block]; block is an array of nothing or one:
--   blocked: this block is set
--   standing: this block was set before; nothing changed
--   lifted: this block is gone
--   not_blocked: there was none to lift; nothing changed
--   unknown: no payer of that name was ever applied; nothing changed
--
-- Keeps: a payer is barred while its block stands; the payer's version moves with every change, so that
-- nobody decides by what is remembered; each change is one journal entry.

local SET_BLOCK = { payer = 1, blocked = 2, reason = 3, operator = 4, context = 5 }

ACCOUNTS, BLOCKS, JOURNAL = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local payer, blocked = command[SET_BLOCK.payer], command[SET_BLOCK.blocked]
local field = 'u:' .. payer

local function block_reply(tag, block)
  return cmsgpack.pack({ tag, now, block and { block } or {} })
end

-- Read, refuse.
local account = payer_account(payer)
if not account or account[PAYER_ACCOUNT.version] == 0 then return block_reply('unknown') end
local standing = read(BLOCKS, field)
if blocked and standing then return block_reply('standing', standing) end
if not blocked and not standing then return block_reply('not_blocked') end

-- Then write.
account[PAYER_ACCOUNT.version] = account[PAYER_ACCOUNT.version] + 1
account[PAYER_ACCOUNT.barred] = blocked
put(ACCOUNTS, field, account)
local set = blocked and { now, command[SET_BLOCK.reason], command[SET_BLOCK.operator] }
keep_block(field, payer, 'operator', set, command[SET_BLOCK.context])
save()
if blocked then return block_reply('blocked', set) end
return block_reply('lifted', standing)
