-- finish_rewrite: puts a rewritten journal in the place of the one that it was made from.
--
-- KEYS[1] journal: everything that happened
-- KEYS[2] journal_new: the journal as it is being written
-- KEYS[3] journal_old: the name that the replaced one has while it is thrown away
-- KEYS[4] upkeep: who rewrites, and how far was trimmed and erased
-- ARGV[1] the packed fields of FINISH_REWRITE; read_until is empty where nothing was read
-- ARGV[2] the clock (see read_clock)
-- ARGV[3] the context of the entry that is left behind it; empty for none
--
-- Answers [tag, now, count]; count is how many entries were copied:
--   done: the journal is the rewritten one, with what came meanwhile
--   behind: more came meanwhile than is copied here; nothing changed
--   lost: somebody else rewrites, or what was written is not whole; nothing changed
--
-- Keeps: every entry that came meanwhile, every id, and the last id that was given. The old journal is
-- freed by UNLINK, which does not keep other commands waiting.

local FINISH_REWRITE = { token = 1, read_until = 2, written = 3, copied = 4, trimmed = 5, erased = 6 }

JOURNAL, JOURNAL_NEW, JOURNAL_OLD, UPKEEP = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local found = upkeep_state()

-- Read, refuse.
local written, most = command[FINISH_REWRITE.written], command[FINISH_REWRITE.copied]
if found[UPKEEP_STATE.token] ~= command[FINISH_REWRITE.token]
  or redis.call('XLEN', JOURNAL_NEW) ~= written then
  return cmsgpack.pack({ 'lost', now, 0 })
end
local read_until = command[FINISH_REWRITE.read_until]
local after = read_until == '' and '-' or '(' .. read_until
local came = redis.call('XRANGE', JOURNAL, after, '+', 'COUNT', most + 1)
if #came > most then return cmsgpack.pack({ 'behind', now, 0 }) end
local last_id
if redis.call('EXISTS', JOURNAL) == 1 then
  local about = redis.call('XINFO', 'STREAM', JOURNAL)
  for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' then last_id = about[i + 1] end
  end
  -- Every entry is kept or stood for by another, so that nothing at all cannot be right.
  if not last_id or written + #came == 0 then return cmsgpack.pack({ 'lost', now, 0 }) end
end

-- Then write.
if last_id then
  for _, entry in ipairs(came) do
    redis.call('XADD', JOURNAL_NEW, entry[1], unpack(entry[2]))
  end
  redis.call('XSETID', JOURNAL_NEW, last_id)
  redis.call('RENAME', JOURNAL, JOURNAL_OLD)
  redis.call('RENAME', JOURNAL_NEW, JOURNAL)
  redis.call('UNLINK', JOURNAL_OLD)
end
found[UPKEEP_STATE.token] = ''
found[UPKEEP_STATE.lease_ends] = 0
found[UPKEEP_STATE.trimmed] =
  math.max(found[UPKEEP_STATE.trimmed], command[FINISH_REWRITE.trimmed])
found[UPKEEP_STATE.erased] = math.max(found[UPKEEP_STATE.erased], command[FINISH_REWRITE.erased])
found[UPKEEP_STATE.rewrites] = found[UPKEEP_STATE.rewrites] + 1
put(UPKEEP, 'j', found)
if ARGV[3] ~= '' then note_erased(ARGV[3]) end
save()
return cmsgpack.pack({ 'done', now, #came })
