-- replace_context: replaces what Rust keeps with a call.
--
-- KEYS[1] calls: every call that is not forgotten
-- ARGV[1] the packed fields of REPLACE_CONTEXT
-- ARGV[2] the clock (see read_clock)
-- ARGV[3] the context that it must have; the new one follows
--
-- Answers [tag, now, count]; count says nothing:
--   replaced: the call has the new context
--   moved: there is no such call, or it has another context; nothing changed
--
-- Keeps: everything else of the call.

local REPLACE_CONTEXT = { call = 1 }

CALLS = unpack(KEYS)
now = read_clock(ARGV[2])
local command = cmsgpack.unpack(ARGV[1])
local id = command[REPLACE_CONTEXT.call]

-- Read, refuse.
local call = read_call(id)
if not call or call[CALL.context] ~= ARGV[3] then
  return cmsgpack.pack({ 'moved', now, 0 })
end

-- Then write.
call[CALL.context] = ARGV[4]
call[CALL.texts] = texts_of(
  call[CALL.payer], call[CALL.decision], identity_of(call), call[CALL.shape], ARGV[4])
put(CALLS, id, call)
save()
return cmsgpack.pack({ 'replaced', now, 0 })
