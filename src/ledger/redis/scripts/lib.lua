-- What every script is made of, the twin of ledger/memory/book.rs: the same names, the same order.
--
-- Redis loads it once, with all verbs, so that its functions are not made anew for each command; `begin`
-- makes sure that nothing else outlives one. A script reads into `values`, changes what it has read, and
-- writes everything at once in `save`, so that an error before that has changed nothing. Empty tables are
-- packed as empty arrays, and arrays hold no nil: an option is '', -1, or an array of nothing or one.

local ACCOUNTS, SIZES, POOLS, LOTS, CALLS, DEADLINES, RETAINED, JOURNAL, PROFILES, NUMBERS, READERS
local ADJUSTMENTS, BLOCKS
local JOURNAL_NEW, JOURNAL_OLD, UPKEEP, SEQUENCE

-- Set by the first `begin`: a library has no globals but `redis` while it is loaded, and looking one up costs each
-- time.
local call_redis, pack, unpack_first, byte, write_fixed, read_fixed, part, following

-- The store's clock in milliseconds, set once by each script.
local now

-- The only place that reads the time. `clock` is what ClockOffset says: milliseconds to add, or '='
-- and an instant; only tests and the demo send anything but 0.
local function read_clock(clock)
  if byte(clock) == 61 then return tonumber(part(clock, 2)) end
  local time = call_redis('TIME')
  local micros = time[2] + 0
  return time[1] * 1000 + (micros - micros % 1000) / 1000 + clock
end

-- The values of a packed array, as `cmsgpack.unpack` gives them, for half the price: its table is made in one
-- piece, not grown.
local unpack_array
do
  local function table_of(rest, ...) return { ... }, rest end

  -- Returns with them where the bytes go on, -1 at their end.
  function unpack_array(bytes)
    local first, second, third = byte(bytes, 1, 3)
    local length, start = -1, 1
    if first and first >= 144 and first <= 159 then
      length = first - 144
    elseif first == 220 and third then
      length, start = second * 256 + third, 3
    end
    if length <= 0 or length > 200 then return cmsgpack.unpack(bytes), -1 end
    local found, rest = table_of(unpack_first(bytes, length, start))
    if #found ~= length then error('Missing bytes in input.') end
    return found, rest
  end
end

-- A call is stored as write_call in stored.rs says, by `struct` rather than `cmsgpack`: that costs a third. Its two instants
-- come first, so that a script can put them before what Rust has packed already; then the other numbers and those of its
-- lines; then its texts, which no command changes (but for the erasure of numbers, replace_context), so that a script passes
-- them on in one piece; then money. The identity among the texts is the fingerprint and the trunk, which are hardly ever read.
--
-- Lua lets a library have 200 names: what only these need is in a block of their own.

local INSTANTS = '<i8i8'
local unpack_call, pack_call, texts_of, identity_of, fingerprint_of
do
  local NUMBERS = INSTANTS .. 'BBBB' .. 'i8i8i8i8i8i8i8i8i8i8i8i8' .. 'I'
  local TEXTS = '<Ic0Ic0III'

  -- Which byte says how many pool lines there are: the first behind the instants. Where the texts of a call without lines
  -- begin, and how many bytes a line has.
  local LINES_AT, TEXTS_AT, LINE = 17, 121, 16

  -- By the number of pool lines; others are made when they are met.
  local numbers_of = {
    [0] = NUMBERS, NUMBERS .. 'i8i8', NUMBERS .. 'i8i8i8i8', NUMBERS .. 'i8i8i8i8i8i8',
  }

  local function format_of(lines)
    return numbers_of[lines] or NUMBERS .. string.rep('i8i8', lines)
  end

  function unpack_call(bytes)
    local lines = byte(bytes, LINES_AT)
    local format = numbers_of[lines] or format_of(lines)
    local texts_at = TEXTS_AT + LINE * lines
    local payer, decision, identity, shape, context, from = read_fixed(TEXTS, bytes, texts_at)
    local shape_at = from + identity
    local context_at = shape_at + shape
    local behind = context_at + context
    local call = {
      payer, decision, part(bytes, shape_at, context_at - 1), part(bytes, context_at, behind - 1),
      part(bytes, texts_at, behind - 1), part(bytes, behind), read_fixed(format, bytes),
    }
    if behind + call[CALL.money_length] ~= #bytes + 1 then error('Missing bytes in input.') end
    return call
  end

  function pack_call(call)
    local line = call.money_line
    if line then
      local velocity = line[MONEY_LINE.velocity][1]
      call[CALL.money] = pack({
        line[MONEY_LINE.lots], velocity and velocity[VELOCITY_LINE.width] or 0,
        velocity and velocity[VELOCITY_LINE.slots] or {},
      })
      call[CALL.money_length] = #call[CALL.money]
    end
    local lines = call[CALL.lines]
    return write_fixed(
      numbers_of[lines] or format_of(lines),
      unpack(call, CALL.authorized_at, CALL.money_length + 2 * lines)
    ) .. call[CALL.texts] .. call[CALL.money]
  end

  function texts_of(payer, decision, identity, shape, context)
    return write_fixed(
      TEXTS, #payer, payer, #decision, decision, #identity, #shape, #context
    ) .. identity .. shape .. context
  end

  function identity_of(call)
    local texts = call[CALL.texts]
    local _, _, identity, _, _, from = read_fixed(TEXTS, texts)
    return part(texts, from, from + identity - 1)
  end

  function fingerprint_of(call)
    return (read_fixed('<Ic0', identity_of(call)))
  end
end

-- Shapes by their bytes: many calls have the same, so that it is unpacked once. Bytes always mean the same, so
-- these outlive a command; nothing in a shape may be changed.
local shapes = { [''] = { { false, false, false, false, 0, 0, 0 }, {}, {} } }
local shapes_known = 0

local function unpacked_shape(bytes)
  local found = shapes[bytes]
  if not found then
    if shapes_known >= 256 then shapes, shapes_known = { [''] = shapes[''] }, 0 end
    found = unpack_array(bytes)
    -- The names of the pools' accounts.
    for _, pool in ipairs(found[SHAPE.pools]) do
      pool.field = 'p:' .. pool[POOL_SHAPE.pool]
      pool.closing_field = pool[POOL_SHAPE.closed_by] ~= '' and 'p:' .. pool[POOL_SHAPE.closed_by]
    end
    shapes[bytes], shapes_known = found, shapes_known + 1
  end
  return found
end

local function shape_of(call)
  local bytes = call[CALL.shape]
  return shapes[bytes] or unpacked_shape(bytes)
end

-- What a run knows of hashes, by key: values by field as they stand now, of calls also as they are packed, and
-- which have changed. A table costs as much as ten of its fields, and more while it grows: those that `save` has
-- emptied are filled again by the next run. Whatever is left by one that failed is thrown away by `begin`.

local hashes, spare = {}, {}
local is_empty = false

-- Most fields of a table that is emptied rather than thrown away: going through it costs by its size.
local MOST_EMPTIED = 32

local function hash_of(key)
  local hash = hashes[key]
  if not hash then
    local last = #spare
    hash = spare[last]
    if hash then
      spare[last] = nil
    else
      hash = { values = {}, bytes = {}, changed = {} }
    end
    hashes[key] = hash
    is_empty = false
  end
  return hash
end

-- Accounts that runs have written, by their bytes: whoever reads these again takes the table, and need not unpack it.
-- What bytes mean never changes, and each table has one taker, so that these outlive a run.
local written, written_count = { [''] = false }, 0

-- What is to be read next, of one hash.
local wanted = {}
local wanted_count = 0

-- Notes a field of a hash to be read, unless it is known.
local function want(known, field)
  if known[field] == nil then
    known[field] = false
    wanted_count = wanted_count + 1
    wanted[wanted_count] = field
  end
end

-- Reads what was noted of a hash, in one call.
local function fetch_wanted(key)
  local hash, count, unread = hash_of(key), wanted_count, wanted
  local known, bytes = hash.values, key == CALLS and hash.bytes
  wanted_count = 0
  for first = 1, count, 1000 do
    local last = count
    if last > first + 999 then last = first + 999 end
    local found = call_redis('HMGET', key, unpack(unread, first, last))
    for i = first, last do
      local value, field = found[i - first + 1], unread[i]
      if not value then
        -- It is known that there is none.
      elseif bytes then
        known[field], bytes[field] = unpack_call(value), value
      else
        local account = written[value]
        if account then
          written[value], written_count = nil, written_count - 1
          known[field] = account
        else
          known[field] = (unpack_array(value))
        end
      end
    end
  end
  if count > MOST_EMPTIED then wanted = {} end
end

-- Reads those of the fields that are not known yet, in one call.
local function fetch(key, fields)
  local known = hash_of(key).values
  for i = 1, #fields do want(known, fields[i]) end
  fetch_wanted(key)
end

-- The value of a field; false where there is none.
local function read(key, field)
  local hash = hashes[key] or hash_of(key)
  local value = hash.values[field]
  if value == nil then
    want(hash.values, field)
    fetch_wanted(key)
    value = hash.values[field]
  end
  return value
end

-- Sets a value, or marks one as changed in place; false removes it.
local function put(key, field, value)
  local hash = hashes[key] or hash_of(key)
  hash.values[field], hash.changed[field] = value, true
  if hash.bytes[field] then hash.bytes[field] = nil end
end

-- Stands for the value of a call of which this run knows the bytes only.
local PACKED = true

-- A call; false where there is none.
local function read_call(id)
  local call = read(CALLS, id)
  if call == PACKED then
    local hash = hash_of(CALLS)
    call = unpack_call(hash.bytes[id])
    hash.values[id] = call
  end
  return call
end

-- A call as it is stored.
local function bytes_of_call(id)
  local hash = hash_of(CALLS)
  local bytes = hash.bytes[id]
  if not bytes then
    bytes = pack_call(hash.values[id])
    hash.bytes[id] = bytes
  end
  return bytes
end

-- Changes of the two lists of calls: an instant, or false to strike off.
local deadlines, retained, opened_pools = {}, {}, {}

-- What is to be noted in the journal: of each entry its bytes, its context and its report.
local notes = {}

-- Instants as text: Redis writes a number that Lua hands it digit by digit, each time.
local text_of
do
  local text_number, text_written = 0, '0'

  function text_of(number)
    if number ~= text_number then
      text_number, text_written = number, string.format('%d', number)
    end
    return text_written
  end
end

-- An entry is stored as write_entry in stored.rs says. What Rust said about the call and what the client said about its
-- end are fields of their own: Lua reads a text once over to make it, so it is best not made again.

local INSTANT = '<i8'
local note_bytes, note_one, note
do
  local POSTING_FORMAT = 'Ic0i8i8i8i8i8'
  local ENTRY_FORMAT = INSTANT .. 'Ii8i8i8i8' .. 'Ic0Ic0Ic0Ic0'
  local ENTRY_FORMAT_1 = ENTRY_FORMAT .. POSTING_FORMAT

  function note_bytes(bytes, context, report)
    local count = #notes
    notes[count + 1], notes[count + 2], notes[count + 3] = bytes, context, report
  end

  -- Notes what has happened to a call and moved its hold in one account, which is most of what is noted: no table is made.
  function note_one(kind, id, call, bucket, held, spent, report)
    local payer, decision = call[CALL.payer], call[CALL.decision]
    note_bytes(write_fixed(
      ENTRY_FORMAT_1, now, 1, call[CALL.used], call[CALL.granted], call[CALL.shortfall_duration],
      call[CALL.shortfall_money], #kind, kind, #id, id, #payer, payer, #decision, decision,
      #bucket, bucket, 0, held, spent, 0, 0), call[CALL.context], report)
  end

  -- Notes the fields of an Entry.
  function note(entry)
    local postings, kind, subject = entry[ENTRY.postings], entry[ENTRY.kind], entry[ENTRY.subject]
    local payer, decision = entry[ENTRY.payer], entry[ENTRY.decision]
    local packed = { write_fixed(
      ENTRY_FORMAT, entry[ENTRY.at], #postings, entry[ENTRY.used], entry[ENTRY.granted],
      entry[ENTRY.shortfall_duration], entry[ENTRY.shortfall_money], #kind, kind, #subject, subject,
      #payer, payer, #decision, decision) }
    for i, one in ipairs(postings) do
      local bucket = one[POSTING.bucket]
      packed[i + 1] = write_fixed(
        '<' .. POSTING_FORMAT, #bucket, bucket, one[POSTING.funded], one[POSTING.held],
        one[POSTING.spent], one[POSTING.expired], one[POSTING.adjusted])
    end
    note_bytes(table.concat(packed), entry[ENTRY.context], entry[ENTRY.report])
  end
end

local function write_entry(key, id, bytes, context, report)
  if report ~= '' then
    call_redis('XADD', key, id, 'e', bytes, 'c', context, 'r', report)
  elseif context ~= '' then
    call_redis('XADD', key, id, 'e', bytes, 'c', context)
  else
    call_redis('XADD', key, id, 'e', bytes)
  end
end

-- Carries out a command on a key with arguments of which `step` belong together, many at a time.
local function in_parts(name, key, arguments, count, step)
  local most = 500 * step
  if count <= most then
    if count > 0 then call_redis(name, key, unpack(arguments, 1, count)) end
    return
  end
  for first = 1, count, most do
    call_redis(name, key, unpack(arguments, first, math.min(first + most - 1, count)))
  end
end

-- What a command of Redis is given; written over by the next one.
local parts = {}

-- Writes the changes of a list of calls; the list that the next run fills.
local function save_list(key, list)
  local kept, gone, here, there = parts, nil, 0, 0
  for id, at in following, list do
    list[id] = nil
    if at then
      kept[here + 1], kept[here + 2] = text_of(at), id
      here = here + 2
    else
      gone = gone or {}
      there = there + 1
      gone[there] = id
    end
  end
  in_parts('ZADD', key, kept, here, 2)
  if gone then in_parts('ZREM', key, gone, there, 1) end
  return here + there > MOST_EMPTIED and {} or list
end

-- Writes the changes of a hash, and empties it.
local function save_hash(key, hash)
  local known, bytes, fields = hash.values, hash.bytes, hash.changed
  local kept, gone, here, there, size = parts, nil, 0, 0, 0
  local write_value = key == CALLS and pack_call or pack
  for field in following, fields do
    fields[field] = nil
    local value = known[field]
    if value then
      local as_bytes = bytes[field] or write_value(value)
      kept[here + 1], kept[here + 2] = field, as_bytes
      here = here + 2
      if key == ACCOUNTS then
        if written_count >= 256 then written, written_count = {}, 0 end
        written[as_bytes], written_count = value, written_count + 1
      end
    else
      gone = gone or {}
      there = there + 1
      gone[there] = field
    end
  end
  in_parts('HSET', key, kept, here, 2)
  if gone then in_parts('HDEL', key, gone, there, 1) end
  for field in following, known do
    known[field] = nil
    if bytes[field] then bytes[field] = nil end
    size = size + 1
  end
  if size <= MOST_EMPTIED then spare[#spare + 1] = hash end
end

-- Writes everything. The journal comes first: it is the one key that no script reads, so that where
-- it is no stream, nothing else has been written yet.
local function save()
  for i = 1, #notes, 3 do write_entry(JOURNAL, '*', notes[i], notes[i + 1], notes[i + 2]) end
  if #notes > 3 * MOST_EMPTIED then notes = {} end
  for i = #notes, 1, -1 do notes[i] = nil end
  for key, hash in following, hashes do
    save_hash(key, hash)
    hashes[key] = nil
  end
  if following(deadlines) then deadlines = save_list(DEADLINES, deadlines) end
  if following(retained) then retained = save_list(RETAINED, retained) end
  if #opened_pools > 0 then
    call_redis('SADD', POOLS, unpack(opened_pools))
    opened_pools = {}
  end
  if #parts > 4 * MOST_EMPTIED then parts = {} end
  is_empty = true
end

-- An answer about a command, in two parts: what it says, with its detail behind a blank, and the call ('' where
-- there is none to show).
local function reply(tag, id, detail)
  return detail and tag .. ' ' .. detail or tag, id and bytes_of_call(id) or ''
end

-- Verbs of calls, by their numbers in VERB: how many arguments a command has (at least two), what notes the accounts that
-- it needs and says what to hand to it in the place of its third, and what decides it. Each is set once, by the script
-- of that verb.
local arguments_of, wants_of, decides = { [0] = 0 }, { [0] = false }, { [0] = false }

-- Carries out commands of calls, one after the other, and writes once: as if each had come alone, at one instant. The
-- arguments are the clock, a text with the number of each command's verb as a byte, then of each command its fields, of which
-- the first is the call, its opaque bytes, and what else its verb asks for. The answers are the clock, and those of `reply`, two
-- each; they take the place of the arguments. Answers with how many there are, too.
local function carry_out(arguments)
  local count, all = #arguments[2], #arguments
  local verbs = { byte(arguments[2], 1, count) }
  local calls = hash_of(CALLS).values
  local at = 3
  for i = 1, count do
    local command = unpack_array(arguments[at])
    arguments[at] = command
    want(calls, command[1])
    at = at + arguments_of[verbs[i]]
  end
  if at ~= all + 1 then error('Missing arguments in input.') end
  fetch_wanted(CALLS)
  local accounts = hash_of(ACCOUNTS).values
  want(accounts, 't')
  at = 3
  for i = 1, count do
    local verb, command = verbs[i], arguments[at]
    local handed = wants_of[verb](accounts, command, calls[command[1]], arguments[at + 2])
    if handed then arguments[at + 2] = handed end
    at = at + arguments_of[verb]
  end
  fetch_wanted(ACCOUNTS)
  arguments[1] = now
  at = 3
  for i = 1, count do
    local verb = verbs[i]
    -- Answers never overtake the arguments, since a command has two at least.
    arguments[2 * i], arguments[2 * i + 1] = decides[verb](
      arguments[at], arguments[at + 1], arguments[at + 2], arguments[at + 3], arguments[at + 4])
    at = at + arguments_of[verb]
  end
  for i = 2 * count + 2, all do arguments[i] = nil end
  save()
  return arguments, 2 * count + 1
end

-- Writes everything and answers with a tag that says it all.
local function reply_plainly(tag)
  save()
  return cmsgpack.pack({ tag, now, 0 })
end

-- Whether one text comes before another, byte by byte: `<` on strings asks the server's locale.
local function precedes(one, other)
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a < b end
  end
  return #one < #other
end

-- The arithmetic of charging/rating.rs. Every product is below 2^53, so that it is exact.

local function round_up(value, increment)
  value = value + increment - 1
  return value - value % increment
end

local function round_down(value, increment)
  return value - value % increment
end

local function billed(tariff, used)
  local initial = tariff[TARIFF.initial_increment]
  if used <= 0 then return 0 end
  if used <= initial then return initial end
  return initial + round_up(used - initial, tariff[TARIFF.increment])
end

local function cost(tariff, used)
  local length = billed(tariff, used)
  if length == 0 then return 0 end
  local sixtieths = tariff[TARIFF.rate_per_minute] * length + 59
  return tariff[TARIFF.connection_fee] + (sixtieths - sixtieths % 60) / 60
end

local function affordable(tariff, budget, wanted)
  wanted = billed(tariff, wanted)
  if cost(tariff, wanted) <= budget then return wanted end
  local initial = tariff[TARIFF.initial_increment]
  if cost(tariff, initial) > budget then return 0 end
  local rate = tariff[TARIFF.rate_per_minute]
  local sixtieths = (budget - tariff[TARIFF.connection_fee]) * 60
  local longest = (sixtieths - sixtieths % rate) / rate
  return initial + round_down(longest - initial, tariff[TARIFF.increment])
end

-- The arithmetic of charging/funding.rs. A side is what one call sees of a source; the wallet's is
-- completed by `survey` only when money is in question, since lots cost a read.

local survey, tariff_of

local reserve, charge
do
  local function current_source(pools, credits)
    if credits and credits.taken > 0 then return #pools + 1 end
    for i = #pools, 1, -1 do
      if pools[i].taken > 0 then return i end
    end
    return 1
  end

  local function reserve_money(rest, credits)
    local taken, tariff = credits.taken, credits.tariff
    local wanted = math.max(cost(tariff, rest) - taken, 0)
    local available = math.max(credits.available, 0)
    local limit = math.max(credits.limit or available, 0)
    local velocity = math.max(credits.velocity or available, 0)
    local left = math.min(available, limit, velocity)
    local ways = credits.others + 1
    local share = math.min((available - available % ways) / ways, left)
    if wanted <= share then return wanted, REACH.full end
    local function following(held)
      return cost(tariff, affordable(tariff, held, rest) + 1) - held
    end
    local fair = math.max(cost(tariff, affordable(tariff, taken + share, rest)) - taken, 0)
    local added = 0
    if fair > 0 then
      added = fair
    elseif following(taken) <= left then
      added = following(taken)
    end
    if added >= wanted then return added, REACH.full end
    if following(taken + added) <= left - added then return added, REACH.shared end
    -- Told before any other cause: a sign of fraud.
    if credits.velocity and following(taken + added) > velocity - added then
      return added, REACH.velocity
    end
    if credits.limit and following(taken + added) > limit - added then
      return added, REACH.spend_limit
    end
    return added, REACH.exhausted
  end

  -- How much more each source must hold so that the call can run for `target` since answer: seconds by
  -- pool, money, what all lines together then cover, and why it ends there.
  function reserve(target, pools, credits)
    local current = current_source(pools, credits)
    local added_to, covered, rest = {}, 0, target
    for i = 1, #pools do added_to[i] = 0 end
    for i = 1, #pools do
      local pool = pools[i]
      local taken = pool.taken
      if i >= current then
        -- Written out without math.max and the like: a function called costs as much as all else here.
        local increment, available, wanted = pool.increment, pool.available, rest
        if available < 0 then available = 0 end
        if wanted < 0 then wanted = 0 end
        wanted = wanted + increment - 1
        wanted = wanted - wanted % increment - taken
        if wanted < 0 then wanted = 0 end
        local left = available - available % increment
        local ways = pool.others + 1
        local share = (available - available % ways) / ways
        share = share - share % increment
        if share < increment then share = increment end
        local added = wanted
        if share < added then added = share end
        if left < added then added = left end
        added_to[i] = added
        taken = taken + added
        if added < wanted and added < left then
          return added_to, 0, covered + taken, REACH.shared
        end
      end
      covered = covered + taken
      rest = rest - taken
    end
    if rest <= 0 then return added_to, 0, covered, REACH.full end
    if not credits then return added_to, 0, covered, REACH.exhausted end
    survey(credits)
    local money, reach = reserve_money(rest, credits)
    return added_to, money, covered + affordable(credits.tariff, credits.taken + money, rest), reach
  end

  -- What `used` seconds cost each source: seconds by pool, money, the billed seconds that money pays
  -- for, the used seconds that nothing pays for, and their price.
  function charge(used, pools, credits)
    local current = current_source(pools, credits)
    local charged_to, rest = {}, used
    for i = 1, #pools do
      local pool = pools[i]
      local capacity = pool.taken
      if i >= current then
        capacity = capacity + round_down(math.max(pool.available, 0), pool.increment)
      end
      local paid = math.min(round_up(math.max(rest, 0), pool.increment), capacity)
      charged_to[i] = paid
      rest = rest - paid
    end
    if rest <= 0 then return charged_to, 0, 0, 0, 0 end
    if not credits then return charged_to, 0, 0, rest, 0 end
    local tariff = tariff_of(credits)
    local price = cost(tariff, rest)
    local money = math.min(price, credits.taken)
    if money < price then
      survey(credits)
      money = math.min(price, credits.taken + math.max(credits.available, 0))
    end
    local length = affordable(tariff, money, rest)
    return charged_to, money, length, math.max(rest - length, 0), price - money
  end
end

-- Accounts and buckets.

-- The last one is remembered: a text that is made costs a look at each of its bytes.
local payer_field
do
  local last_payer, last_payer_field = '', 'u:'

  function payer_field(payer)
    if payer ~= last_payer then
      last_payer, last_payer_field = payer, 'u:' .. payer
    end
    return last_payer_field
  end
end

local function tenant_account()
  local account = read(ACCOUNTS, 't')
  if not account then
    account = { 0, false, 0, 0, 0, 0 }
    hash_of(ACCOUNTS).values.t = account
  end
  return account
end

-- The payer's account; false where the payer is unknown.
local function payer_account(payer)
  return read(ACCOUNTS, payer_field(payer))
end

-- Notes that the accounts of these pools are to be read.
local function want_pools(known, pools)
  for i = 1, #pools do
    local pool = pools[i]
    want(known, pool.field)
    if pool.closing_field then want(known, pool.closing_field) end
  end
end

-- Notes that the accounts of a call are to be read, where there is one.
local function want_accounts_of(known, _, call)
  if call then
    want(known, payer_field(call[CALL.payer]))
    want_pools(known, shape_of(call)[SHAPE.pools])
  end
end

-- Reads the accounts that a command on the call needs, in one call.
local function fetch_accounts_of(call)
  local accounts = hash_of(ACCOUNTS).values
  want(accounts, 't')
  want_accounts_of(accounts, nil, call)
  fetch_wanted(ACCOUNTS)
end

-- The payer's account of this field, to be changed. One that is not applied yet has an account from its first counted
-- call on, so that what is counted up before it is applied can be counted down after.
local function changed_payer(field)
  local account = read(ACCOUNTS, field) or { 0, false, 0, '', 0, 0, false }
  put(ACCOUNTS, field, account)
  return account
end

local function count_decision()
  local tenant = tenant_account()
  tenant[TENANT_ACCOUNT.decisions] = tenant[TENANT_ACCOUNT.decisions] + 1
  put(ACCOUNTS, 't', tenant)
end

-- Counts calls of the payer of that field as open; the tenant's account.
local function count_one(field, by)
  local accounts = hash_of(ACCOUNTS)
  local known, changed = accounts.values, accounts.changed
  local tenant, payer = known.t or tenant_account(), known[field] or changed_payer(field)
  tenant[TENANT_ACCOUNT.open] = tenant[TENANT_ACCOUNT.open] + by
  payer[PAYER_ACCOUNT.open] = payer[PAYER_ACCOUNT.open] + by
  changed.t, changed[field] = true, true
  return tenant
end

local function count_open(call, by)
  if shape_of(call)[SHAPE.terms][TERMS.counted] then count_one(payer_field(call[CALL.payer]), by) end
end

-- Counts money towards the payer's spend limit of `month`; an older month no longer counts.
local function count_money(payer, month, held, spent)
  if held == 0 and spent == 0 then return end
  local account = changed_payer(payer_field(payer))
  if precedes(account[PAYER_ACCOUNT.month], month) then
    account[PAYER_ACCOUNT.month] = month
    account[PAYER_ACCOUNT.held] = 0
    account[PAYER_ACCOUNT.spent] = 0
  end
  if account[PAYER_ACCOUNT.month] == month then
    account[PAYER_ACCOUNT.held] = account[PAYER_ACCOUNT.held] + held
    account[PAYER_ACCOUNT.spent] = account[PAYER_ACCOUNT.spent] + spent
  end
end

local function available(bucket)
  local left = bucket[BUCKET.funded] + bucket[BUCKET.adjusted] - bucket[BUCKET.held]
    - bucket[BUCKET.spent] - bucket[BUCKET.expired]
  return left > 0 and left or 0
end

local function is_used_up(bucket)
  return bucket[BUCKET.spent] >= bucket[BUCKET.funded] + bucket[BUCKET.adjusted]
end

local function wallet()
  local found = read(LOTS, 'w')
  if not found then
    found = { 0, {}, {}, 0, false }
    hash_of(LOTS).values.w = found
  end
  return found
end

local function lot(id)
  return read(LOTS, 'l:' .. id)
end

-- Post-paid (rule 42): one lot a month, whose `funded` is what is held and spent of it, drawn after all
-- others and never in the drawing order. It is valid always: 2^53 - 1 is the end of time.

local MAX_OVERAGE = 1000000000000000

local function overage_id(month)
  return 'overage:' .. month
end

local function is_overage(id)
  return string.sub(id, 1, 8) == 'overage:'
end

-- The overage of a month; as it would be opened where there is none yet.
local function overage_lot(month)
  return lot(overage_id(month)) or { 0, 0, 0, 0, 0, 0, 0, 9007199254740991, 0 }
end

-- Spend velocity: the twin of SpendRing in ledger/state.rs, which says what is what.

local ring_total, stored_ring, ring_seen_by, count_velocity
do
  local VELOCITY_SLOTS = 12

  local function current_slot(ring)
    local width, slots = ring[SPEND_RING.width], ring[SPEND_RING.slots]
    local number, last = (now - now % width) / width, slots[#slots]
    return last and math.max(number, last[SLOT.number]) or number
  end

  local function slots_since(slots, oldest)
    local kept = {}
    for _, slot in ipairs(slots) do
      if slot[SLOT.number] >= oldest then kept[#kept + 1] = slot end
    end
    return kept
  end

  function ring_total(ring)
    local sum = 0
    for _, slot in ipairs(ring[SPEND_RING.slots]) do sum = sum + slot[SLOT.money] end
    return sum
  end

  -- The ring as stored; of no width before the first use.
  function stored_ring()
    return read(LOTS, 'v') or { 0, {} }
  end

  -- The ring as a call finds it: without what is older than the window, and with slots of the call's length
  -- where it has not committed anything yet.
  function ring_seen_by(line)
    local ring = stored_ring()
    local width, live = ring[SPEND_RING.width], {}
    if width > 0 then live = slots_since(ring[SPEND_RING.slots], current_slot(ring) - VELOCITY_SLOTS) end
    ring = { width, live }
    local asked = line[VELOCITY_LINE.width]
    if width == asked or #line[VELOCITY_LINE.slots] > 0 then return ring end
    local sum, slots = ring_total(ring), {}
    if sum > 0 then slots[1] = { (now - now % asked) / asked, sum } end
    return { asked, slots }
  end

  -- Counts what a call holds or is charged more than before; less than zero is given back, from the call's
  -- newest slot down.
  function count_velocity(money, by)
    local line = money[MONEY_LINE.velocity][1]
    if not line or by == 0 then return end
    local ring = ring_seen_by(line)
    if line[VELOCITY_LINE.width] ~= ring[SPEND_RING.width] then
      line[VELOCITY_LINE.width], line[VELOCITY_LINE.slots] = ring[SPEND_RING.width], {}
    end
    local mine = line[VELOCITY_LINE.slots]
    if by > 0 then
      local number = current_slot(ring)
      for _, slots in ipairs({ ring[SPEND_RING.slots], mine }) do
        local last = slots[#slots]
        if last and last[SLOT.number] == number then
          last[SLOT.money] = last[SLOT.money] + by
        else
          slots[#slots + 1] = { number, by }
        end
      end
      line[VELOCITY_LINE.slots] = slots_since(mine, number - VELOCITY_SLOTS)
    else
      local by_number, rest = {}, -by
      for _, slot in ipairs(ring[SPEND_RING.slots]) do by_number[slot[SLOT.number]] = slot end
      for i = #mine, 1, -1 do
        local back, slot = math.min(rest, mine[i][SLOT.money]), by_number[mine[i][SLOT.number]]
        mine[i][SLOT.money] = mine[i][SLOT.money] - back
        rest = rest - back
        if slot then slot[SLOT.money] = math.max(slot[SLOT.money] - back, 0) end
      end
    end
    put(LOTS, 'v', ring)
  end
end

-- The lots that may still be drawn, in drawing order, all read at once.
local function live_lots()
  local live, fields = wallet()[WALLET.live], {}
  for i, id in ipairs(live) do fields[i] = 'l:' .. id end
  fetch(LOTS, fields)
  return live
end

local function is_valid(bucket)
  return bucket and bucket[BUCKET.starts] <= now and now < bucket[BUCKET.ends]
end

local function credits_now()
  local sum = 0
  for _, id in ipairs(live_lots()) do
    local bucket = lot(id)
    if is_valid(bucket) then sum = sum + available(bucket) end
  end
  return sum
end

-- What the next entry brings with it: noted after it.
local alerts = {}

-- The highest share in percent whose use is worth telling: 0, 80 or 100, judged on what is spent.
local function alert_due(bucket)
  local size = bucket[BUCKET.funded] + bucket[BUCKET.adjusted]
  local spent = bucket[BUCKET.spent] * 100
  if size <= 0 or spent < size * 80 then return 0 end
  return spent < size * 100 and 80 or 100
end

-- Tells what a pool's spending makes worth telling, once each (D18).
local function alert(pool, bucket)
  local due, told = alert_due(bucket), bucket[BUCKET.alerted]
  if due <= told then return end
  bucket[BUCKET.alerted] = due
  if told < 80 then
    alerts[#alerts + 1] = { 'pool_threshold', now, pool, '', '', 0, 0, 0, 0, {}, '', '' }
  end
  if due >= 100 then
    alerts[#alerts + 1] = { 'pool_exhausted', now, pool, '', '', 0, 0, 0, 0, {}, '', '' }
  end
end

-- Strikes lots off the drawing order that are spent or lapsed and that nobody holds. Only a lot that
-- this script has read can have become one.
local function drop_empty_lots()
  local found, kept, known = wallet(), {}, hash_of(LOTS).values
  for _, id in ipairs(found[WALLET.live]) do
    local bucket = known['l:' .. id]
    if bucket == nil or (bucket and (available(bucket) > 0 or bucket[BUCKET.held] > 0)) then
      kept[#kept + 1] = id
    end
  end
  if #kept < #found[WALLET.live] then
    if #kept == 0 then
      alerts[#alerts + 1] = { 'credits_depleted', now, '', '', '', 0, 0, 0, 0, {}, '', '' }
    end
    found[WALLET.live] = kept
    put(LOTS, 'w', found)
  end
end

-- Auto-recharge: the twin of ledger/recharge.rs.

-- Most money that any sum of a wallet may come to.
local MAX_MONEY = 1000000000000000

local decimal, unspent, recharge_terms, judge_recharge, fail_recharge, succeed_recharge
do
  -- A whole number as text; tostring would turn to exponents.
  function decimal(number)
    return string.format('%.0f', number)
  end

  local function day_of(instant)
    return (instant - instant % 86400000) / 86400000
  end

  -- Money of the live lots as a balance shows it: available, and what is held if that counts.
  function unspent(with_held)
    local sum = 0
    for _, id in ipairs(live_lots()) do
      local bucket = lot(id)
      if bucket and now < bucket[BUCKET.ends] then sum = sum + available(bucket) end
      if bucket and with_held then sum = sum + bucket[BUCKET.held] end
    end
    return sum
  end

  local function recharge_entry(kind, key, amount, reason)
    return { kind, now, key, '', '', 0, 0, 0, 0, {}, decimal(amount), reason or '' }
  end

  -- The terms by which a recharge is asked for; nil where it never is.
  function recharge_terms()
    local recharge = wallet()[WALLET.recharge][1]
    return recharge and recharge[RECHARGE.terms][1]
  end

  -- Asks for a recharge where the balance is below the trigger and nothing stands against it (D16); noted
  -- after the next entry.
  function judge_recharge()
    local terms = recharge_terms()
    if not terms then return end
    local found = wallet()
    local recharge = found[WALLET.recharge][1]
    local amount, cap = terms[RECHARGE_TERMS.amount], terms[RECHARGE_TERMS.daily_cap]
    local day, requested = day_of(now), recharge[RECHARGE.requested]
    if day > recharge[RECHARGE.day] then requested = 0 end
    if recharge[RECHARGE.in_flight] or now < recharge[RECHARGE.not_before]
      or (cap >= 0 and requested + amount > cap) then return end
    if unspent(not terms[RECHARGE_TERMS.on_available]) >= terms[RECHARGE_TERMS.trigger] then return end
    recharge[RECHARGE.requested] = math.min(requested + amount, MAX_MONEY)
    recharge[RECHARGE.day] = math.max(recharge[RECHARGE.day], day)
    recharge[RECHARGE.requests] = recharge[RECHARGE.requests] + 1
    recharge[RECHARGE.in_flight] = true
    local key = 'recharge.' .. decimal(recharge[RECHARGE.requests])
    put(LOTS, 'w', found)
    put(LOTS, 'r:' .. key, { amount, now, false })
    alerts[#alerts + 1] = recharge_entry('recharge_requested', key, amount)
  end

  -- The request in flight has failed: its part of the day is given back, and there is a wait.
  function fail_recharge(recharge, key, request, reason)
    local failures = recharge[RECHARGE.failures] + 1
    local wait = failures < 8 and math.min(900 * 2 ^ (failures - 1), 86400) or 86400
    recharge[RECHARGE.in_flight] = false
    recharge[RECHARGE.failures] = failures
    recharge[RECHARGE.not_before] = now + wait * 1000
    local amount = request[RECHARGE_REQUEST.amount]
    if day_of(request[RECHARGE_REQUEST.requested_at]) == recharge[RECHARGE.day] then
      recharge[RECHARGE.requested] = math.max(recharge[RECHARGE.requested] - amount, 0)
    end
    request[RECHARGE_REQUEST.failed] = true
    put(LOTS, 'w', wallet())
    put(LOTS, 'r:' .. key, request)
    note(recharge_entry('recharge_failed', key, amount, reason))
  end

  -- A request has succeeded, be it one that was reported failed: that counts for its day again.
  function succeed_recharge(recharge, key, request)
    if not request[RECHARGE_REQUEST.failed] then
      recharge[RECHARGE.in_flight] = false
    elseif day_of(request[RECHARGE_REQUEST.requested_at]) == recharge[RECHARGE.day] then
      recharge[RECHARGE.requested] =
        math.min(recharge[RECHARGE.requested] + request[RECHARGE_REQUEST.amount], MAX_MONEY)
    end
    recharge[RECHARGE.failures] = 0
    recharge[RECHARGE.not_before] = 0
    put(LOTS, 'w', wallet())
    put(LOTS, 'r:' .. key, false)
  end
end

-- Counts what a settled call fell short of (D7), or less where a correction lowers that; of an expired one
-- it may still change. What a lot has paid of it stays paid.
local function owe(more)
  if more == 0 then return end
  local found = wallet()
  found[WALLET.owed] = math.max(math.min(found[WALLET.owed] + more, MAX_MONEY), 0)
  put(LOTS, 'w', found)
end

-- Puts a lot that has money into the drawing order, if it is not there.
local function enlist_lot(id)
  local live, place = live_lots(), 1
  for _, other in ipairs(live) do
    if other == id then return end
  end
  local starts = lot(id)[BUCKET.starts]
  while live[place] do
    local other = lot(live[place])
    local bought = other and other[BUCKET.starts] or 0
    if starts < bought or (starts == bought and precedes(id, live[place])) then break end
    place = place + 1
  end
  table.insert(live, place, id)
  put(LOTS, 'w', wallet())
end

local function posting(bucket, funded, held, spent, expired, adjusted)
  return { bucket, funded, held, spent, expired, adjusted or 0 }
end

-- The sources of a call as the funding arithmetic sees them.

-- `new_pools` has the pools that the call would open, by id.
local function pool_sides(call, new_pools)
  local sides, pools = {}, shape_of(call)[SHAPE.pools]
  for i = 1, #pools do
    local pool = pools[i]
    local id, closed_by, held =
      pool[POOL_SHAPE.pool], pool[POOL_SHAPE.closed_by], call[CALL.money_length + 2 * i - 1]
    local bucket = read(ACCOUNTS, pool.field) or (new_pools and new_pools[id])
    local closed = false
    if pool.closing_field then
      local other = read(ACCOUNTS, pool.closing_field) or (new_pools and new_pools[closed_by])
      closed = other and is_used_up(other)
    end
    sides[i] = {
      taken = held + call[CALL.money_length + 2 * i],
      available = bucket and not closed and available(bucket) or 0,
      others = (bucket and bucket[BUCKET.holds] or 0) - (held > 0 and 1 or 0),
      increment = pool[POOL_SHAPE.increment],
    }
  end
  return sides
end

-- The call's line on the wallet, to be changed; nil where money never pays. Put together only where money is in
-- question: most calls are paid by their pools.
local function money_line(call)
  local line = call.money_line
  if line then return line end
  local shape = shape_of(call)[SHAPE.money][1]
  if not shape then return nil end
  local taken = call[CALL.money] ~= '' and cmsgpack.unpack(call[CALL.money]) or { {}, false, {} }
  local frozen, velocity = shape[MONEY_SHAPE.velocity][1], {}
  if frozen then
    velocity[1] = {
      frozen[VELOCITY_LINE.most], taken[MONEY_TAKEN.width] or frozen[VELOCITY_LINE.width],
      taken[MONEY_TAKEN.slots],
    }
  end
  line = {
    shape[MONEY_SHAPE.tariff], shape[MONEY_SHAPE.spend_limit], shape[MONEY_SHAPE.month],
    taken[MONEY_TAKEN.lots], shape[MONEY_SHAPE.overage], velocity,
  }
  call.money_line = line
  return line
end

-- Whether money ever was held or charged.
local function has_money(call)
  return call.money_line or call[CALL.money] ~= ''
end

-- What the call's line on the wallet holds, and what it was charged.
local function money_sums(call)
  local held, spent = 0, 0
  if not has_money(call) then return held, spent end
  local lines = money_line(call)[MONEY_LINE.lots]
  for i = 1, #lines do
    held = held + lines[i][LOT_LINE.held]
    spent = spent + lines[i][LOT_LINE.spent]
  end
  return held, spent
end

local function credit_side(call)
  if not shape_of(call)[SHAPE.money][1] then return nil end
  local held, spent = money_sums(call)
  return { taken = held + spent, held = held, call = call }
end

function tariff_of(side)
  local tariff = side.tariff
  if not tariff then
    tariff = money_line(side.call)[MONEY_LINE.tariff]
    side.tariff = tariff
  end
  return tariff
end

function survey(side)
  tariff_of(side)
  if side.available then return end
  local money = money_line(side.call)
  side.available = credits_now()
  side.others = wallet()[WALLET.holds] - (side.held > 0 and 1 or 0)
  if money[MONEY_LINE.overage] then
    -- Nobody has to share what is followed by overage.
    local funded = overage_lot(money[MONEY_LINE.month])[BUCKET.funded]
    side.available = side.available + math.max(MAX_OVERAGE - funded, 0)
    side.others = 0
  end
  local velocity = money[MONEY_LINE.velocity][1]
  if velocity then
    side.velocity = math.max(velocity[VELOCITY_LINE.most] - ring_total(ring_seen_by(velocity)), 0)
  end
  local limit = money[MONEY_LINE.spend_limit]
  if limit >= 0 then
    local account, month = payer_account(side.call[CALL.payer]), money[MONEY_LINE.month]
    if account and account[PAYER_ACCOUNT.month] == month then
      limit = limit - account[PAYER_ACCOUNT.held] - account[PAYER_ACCOUNT.spent]
    elseif account and precedes(month, account[PAYER_ACCOUNT.month]) then
      -- Once a later month is counted, what the call's own month had left is not known any more.
      limit = 0
    end
    side.limit = math.max(limit, 0)
  end
end

-- Holds.

local function lot_line(money, id)
  local lines = money[MONEY_LINE.lots]
  for _, line in ipairs(lines) do
    if line[LOT_LINE.lot] == id then return line end
  end
  -- What was bought is used before anything is post-paid (rule 43).
  local place = #lines + 1
  if #lines > 0 and is_overage(lines[#lines][LOT_LINE.lot]) then place = #lines end
  table.insert(lines, place, { id, 0, 0 })
  return lines[place]
end

-- Adds to the overage that a call's month holds and has spent.
local function post_pay(money, held, spent, postings)
  local month = money[MONEY_LINE.month]
  local id, bucket = overage_id(month), overage_lot(month)
  local line = lot_line(money, id)
  bucket[BUCKET.funded] = bucket[BUCKET.funded] + held + spent
  bucket[BUCKET.held] = bucket[BUCKET.held] + held
  bucket[BUCKET.spent] = bucket[BUCKET.spent] + spent
  if held > 0 and line[LOT_LINE.held] <= 0 then bucket[BUCKET.holds] = bucket[BUCKET.holds] + 1 end
  line[LOT_LINE.held] = line[LOT_LINE.held] + held
  line[LOT_LINE.spent] = line[LOT_LINE.spent] + spent
  put(LOTS, 'l:' .. id, bucket)
  postings[#postings + 1] = posting('l:' .. id, held + spent, held, spent, 0)
end

-- Takes a reservation out of the buckets and adds it to the call's lines.
local function hold(call, added_to, added_money)
  local postings, pools = {}, shape_of(call)[SHAPE.pools]
  for i = 1, #pools do
    local added, at = added_to[i], CALL.money_length + 2 * i - 1
    if added > 0 then
      local field = pools[i].field
      local bucket = read(ACCOUNTS, field)
      bucket[BUCKET.held] = bucket[BUCKET.held] + added
      if call[at] <= 0 then bucket[BUCKET.holds] = bucket[BUCKET.holds] + 1 end
      call[at] = call[at] + added
      put(ACCOUNTS, field, bucket)
      postings[#postings + 1] = { field, 0, added, 0, 0, 0 }
    end
  end
  if added_money <= 0 then return postings end
  local money, found = money_line(call), wallet()
  if money_sums(call) <= 0 then
    found[WALLET.holds] = found[WALLET.holds] + 1
    put(LOTS, 'w', found)
  end
  local rest = added_money
  for _, id in ipairs(live_lots()) do
    local bucket = lot(id)
    local taken = is_valid(bucket) and math.min(rest, available(bucket)) or 0
    if taken > 0 then
      local line = lot_line(money, id)
      bucket[BUCKET.held] = bucket[BUCKET.held] + taken
      if line[LOT_LINE.held] <= 0 then bucket[BUCKET.holds] = bucket[BUCKET.holds] + 1 end
      line[LOT_LINE.held] = line[LOT_LINE.held] + taken
      rest = rest - taken
      put(LOTS, 'l:' .. id, bucket)
      postings[#postings + 1] = posting('l:' .. id, 0, taken, 0, 0)
    end
  end
  if rest > 0 and money[MONEY_LINE.overage] then post_pay(money, rest, 0, postings) end
  count_velocity(money, added_money)
  count_money(call[CALL.payer], money[MONEY_LINE.month], added_money, 0)
  -- What is held is not spent, but it is not available any more.
  local terms = recharge_terms()
  if terms and terms[RECHARGE_TERMS.on_available] then judge_recharge() end
  return postings
end

-- Has the only pool of a call hold what it needs to run for `target`, where that has enough for each of its calls; `held`
-- and `spent` are what it has of it already. How much more it holds, and the pool's account; nil wherever `reserve` has more
-- to say. Most calls are like this, and it costs a fifth.
local function hold_plenty(shape, target, held, spent)
  local pools = shape[SHAPE.pools]
  local pool = pools[1]
  if not pool or pools[2] or pool[POOL_SHAPE.closed_by] ~= '' or target <= 0 then return nil end
  local field = pool.field
  local bucket = read(ACCOUNTS, field)
  if not bucket then return nil end
  local increment = pool[POOL_SHAPE.increment]
  local added = target + increment - 1
  added = added - added % increment - held - spent
  if added <= 0 then return 0, bucket end
  local all_held, ways = bucket[BUCKET.held], bucket[BUCKET.holds]
  local left = bucket[BUCKET.funded] + bucket[BUCKET.adjusted] - all_held - bucket[BUCKET.spent]
    - bucket[BUCKET.expired]
  if held <= 0 then ways = ways + 1 end
  local share = (left - left % ways) / ways
  if share - share % increment < added then return nil end
  bucket[BUCKET.held], bucket[BUCKET.holds] = all_held + added, ways
  put(ACCOUNTS, field, bucket)
  return added, bucket
end

local settle_plenty, settle_lines
do
  -- Charges `owed` to the lots: first what the call holds, in the order held, then what is left,
  -- soonest bought first, then overage where it may pay. What a lapsed lot gets back has expired (D17),
  -- what overage gets back was never funded.
  local function charge_lots(money, owed, postings)
    local rest = owed
    for _, line in ipairs(money[MONEY_LINE.lots]) do
      local held = line[LOT_LINE.held]
      local bucket = held > 0 and lot(line[LOT_LINE.lot])
      if bucket then
        local field = 'l:' .. line[LOT_LINE.lot]
        local paid = math.min(rest, held)
        local overage = is_overage(line[LOT_LINE.lot])
        local lapsed = not overage and bucket[BUCKET.ends] <= now and held - paid or 0
        local unfunded = overage and held - paid or 0
        rest = rest - paid
        bucket[BUCKET.funded] = bucket[BUCKET.funded] - unfunded
        bucket[BUCKET.held] = bucket[BUCKET.held] - held
        bucket[BUCKET.spent] = bucket[BUCKET.spent] + paid
        bucket[BUCKET.expired] = bucket[BUCKET.expired] + lapsed
        bucket[BUCKET.holds] = bucket[BUCKET.holds] - 1
        line[LOT_LINE.held] = 0
        line[LOT_LINE.spent] = line[LOT_LINE.spent] + paid
        put(LOTS, field, bucket)
        postings[#postings + 1] = posting(field, -unfunded, -held, paid, lapsed)
      end
    end
    if rest <= 0 then return end
    for _, id in ipairs(live_lots()) do
      local bucket = lot(id)
      local paid = is_valid(bucket) and math.min(rest, available(bucket)) or 0
      if paid > 0 then
        local line = lot_line(money, id)
        rest = rest - paid
        bucket[BUCKET.spent] = bucket[BUCKET.spent] + paid
        line[LOT_LINE.spent] = line[LOT_LINE.spent] + paid
        put(LOTS, 'l:' .. id, bucket)
        postings[#postings + 1] = posting('l:' .. id, 0, 0, paid, 0)
      end
    end
    if rest > 0 and money[MONEY_LINE.overage] then post_pay(money, 0, rest, postings) end
  end

  -- Gives money back to the lots that were charged, the last one first. What a lapsed lot gets back has
  -- expired (D17), what overage gets back was never funded.
  local function give_back(money, owed, postings)
    local rest, lines = owed, money[MONEY_LINE.lots]
    for i = #lines, 1, -1 do
      local line = lines[i]
      local back = math.min(rest, line[LOT_LINE.spent])
      local bucket = back > 0 and lot(line[LOT_LINE.lot])
      if bucket then
        local field = 'l:' .. line[LOT_LINE.lot]
        local overage = is_overage(line[LOT_LINE.lot])
        local lapsed = not overage and bucket[BUCKET.ends] <= now and back or 0
        local unfunded = overage and back or 0
        rest = rest - back
        bucket[BUCKET.funded] = bucket[BUCKET.funded] - unfunded
        bucket[BUCKET.spent] = bucket[BUCKET.spent] - back
        bucket[BUCKET.expired] = bucket[BUCKET.expired] + lapsed
        line[LOT_LINE.spent] = line[LOT_LINE.spent] - back
        put(LOTS, field, bucket)
        postings[#postings + 1] = posting(field, -unfunded, 0, -back, lapsed)
        if not overage and lapsed == 0 then enlist_lot(line[LOT_LINE.lot]) end
      end
    end
  end

  -- What `charge` says, from what the call's sources are now.
  local function charge_call(call, used, gives_back)
    local pools, credits = pool_sides(call), credit_side(call)
    if gives_back then
      for _, pool in ipairs(pools) do pool.available = 0 end
      if credits then credits.available = 0 end
    end
    return charge(used, pools, credits)
  end

  -- Charges `used` and gives back the rest where the call's only pool pays out of what the call has taken, as it does mostly.
  -- The pool's account, what it holds less and has spent more; nil wherever `settle_lines` has more to say.
  function settle_plenty(call, used)
    if call[CALL.lines] ~= 1 or used < 0 or has_money(call) then return nil end
    local pool = shape_of(call)[SHAPE.pools][1]
    local increment, held, before = pool[POOL_SHAPE.increment], call[CALL.held], call[CALL.spent]
    local paid = used + increment - 1
    paid = paid - paid % increment
    local spent = paid - before
    if paid > held + before or (held == 0 and spent == 0) then return nil end
    local field = pool.field
    local bucket = read(ACCOUNTS, field)
    local all_spent = bucket[BUCKET.spent] + spent
    bucket[BUCKET.held], bucket[BUCKET.spent] = bucket[BUCKET.held] - held, all_spent
    if held > 0 then bucket[BUCKET.holds] = bucket[BUCKET.holds] - 1 end
    call[CALL.held], call[CALL.spent] = 0, paid
    call[CALL.money_duration], call[CALL.shortfall_duration], call[CALL.shortfall_money] = 0, 0, 0
    if all_spent * 5 >= (bucket[BUCKET.funded] + bucket[BUCKET.adjusted]) * 4 then
      alert(pool[POOL_SHAPE.pool], bucket)
    end
    put(ACCOUNTS, field, bucket)
    return field, held, spent
  end

  -- Charges `used` to the call's lines and gives back everything else that they hold. Where less is charged
  -- than before (`gives_back`) that takes nothing that the lines do not have.
  function settle_lines(call, used, gives_back)
    local shape = shape_of(call)
    if shape[SHAPE.terms][TERMS.free] then return {} end
    local pools = shape[SHAPE.pools]
    local charged_to, price, length, short, short_price = charge_call(call, used, gives_back)
    call[CALL.money_duration] = length
    call[CALL.shortfall_duration] = short
    call[CALL.shortfall_money] = short_price
    local postings = {}
    for i = 1, #pools do
      local at = CALL.money_length + 2 * i - 1
      local held, spent = call[at], charged_to[i] - call[at + 1]
      if held ~= 0 or spent ~= 0 then
        local pool, field = pools[i][POOL_SHAPE.pool], pools[i].field
        local bucket = read(ACCOUNTS, field)
        bucket[BUCKET.held] = bucket[BUCKET.held] - held
        bucket[BUCKET.spent] = bucket[BUCKET.spent] + spent
        if held > 0 then bucket[BUCKET.holds] = bucket[BUCKET.holds] - 1 end
        call[at], call[at + 1] = 0, charged_to[i]
        alert(pool, bucket)
        if gives_back then
          bucket[BUCKET.alerted] = math.min(bucket[BUCKET.alerted], alert_due(bucket))
        end
        put(ACCOUNTS, field, bucket)
        postings[#postings + 1] = posting(field, 0, -held, spent, 0)
      end
    end
    if price <= 0 and not has_money(call) then return postings end
    local money, held, before = money_line(call), money_sums(call)
    if held > 0 or price > before then
      charge_lots(money, price - before, postings)
      if held > 0 then
        local found = wallet()
        found[WALLET.holds] = found[WALLET.holds] - 1
        put(LOTS, 'w', found)
      end
      drop_empty_lots()
      judge_recharge()
    elseif price < before then
      give_back(money, before - price, postings)
    end
    count_velocity(money, price - before - held)
    count_money(call[CALL.payer], money[MONEY_LINE.month], -held, price - before)
    return postings
  end
end

-- Calls and their deadlines.

-- A call that holds nothing and knows no usage.
local function fresh_call(state, identity, decision, payer, context, shape)
  local call = {
    payer, decision, shape, context, texts_of(payer, decision, identity, shape, context), '',
    now, 0, 0, state, 0, REACH.full, 0, 0, -1, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  }
  if shape ~= '' then
    local lines = #shape_of(call)[SHAPE.pools]
    call[CALL.lines] = lines
    for i = CALL.spent + 1, CALL.money_length + 2 * lines do call[i] = 0 end
  end
  return call
end

local function packed_identity(fingerprint, trunk)
  return write_fixed('<Ic0Ic0', #fingerprint, fingerprint, #trunk, trunk)
end

local function tombstone()
  return fresh_call(STATE.ended, packed_identity('', ''), '', '', '', '')
end

local function is_open(call)
  return call[CALL.state] == STATE.ringing or call[CALL.state] == STATE.answered
end

local function mark_answered(call)
  call[CALL.state] = STATE.answered
  if call[CALL.answered_at] == 0 then call[CALL.answered_at] = now end
end

local function in_call_deadline(call)
  local left = call[CALL.granted] - call[CALL.used]
  if left < 0 then left = 0 end
  return now + (left + shape_of(call)[SHAPE.terms][TERMS.grace]) * 1000
end

local function list_open(id, call, deadline)
  call[CALL.deadline] = deadline
  deadlines[id] = deadline
  put(CALLS, id, call)
end

local function open(id, call, deadline)
  count_open(call, 1)
  list_open(id, call, deadline)
end

local function retain(id, call, deadline)
  call[CALL.deadline] = deadline
  retained[id] = deadline
  put(CALLS, id, call)
end

local function close(id, call, state, keep)
  count_open(call, -1)
  deadlines[id] = false
  call[CALL.state] = state
  call[CALL.ended_at] = now
  retain(id, call, keep)
end

local keep_packed
do
  -- The instants that stand before what Rust has packed: made once for all calls of a run that have the same.
  local stamped_now, stamped_deadline, entry_stamp, call_stamp = -1, -1, '', ''

  -- Keeps a call and notes its entry, both of which Rust has packed but for the instants.
  function keep_packed(id, list, deadline, call, entry, shape, context)
    if now ~= stamped_now or deadline ~= stamped_deadline then
      entry_stamp, call_stamp = write_fixed(INSTANT, now), write_fixed(INSTANTS, now, deadline)
      stamped_now, stamped_deadline = now, deadline
    end
    local calls = hash_of(CALLS)
    calls.bytes[id] = call_stamp .. call .. shape .. context
    calls.values[id], calls.changed[id] = PACKED, true
    list[id] = deadline
    note_bytes(entry_stamp .. entry, context, '')
  end
end

-- The journal.

local function note_alerts()
  for i = 1, #alerts do
    note(alerts[i])
    alerts[i] = nil
  end
end

-- Kind, at, subject, payer, decision, used, granted, shortfall_duration, shortfall_money, postings,
-- context, report: the fields of Entry.
local function note_call(kind, id, call, postings, report)
  local entry = {
    kind, now, id, call[CALL.payer], call[CALL.decision],
    kind == 'parked' and call[CALL.parked] or call[CALL.used], call[CALL.granted],
    call[CALL.shortfall_duration], call[CALL.shortfall_money], postings,
    call[CALL.context], report or '',
  }
  note(entry)
  note_alerts()
  return entry
end

local function note_lot(kind, id, posted, context)
  note({ kind, now, id, '', '', 0, 0, 0, 0, { posted }, context, '' })
end

local function note_erased(context)
  note({ 'numbers_erased', now, '', '', '', 0, 0, 0, 0, {}, context, '' })
end

local function note_regressed(about)
  note({ 'ledger_regressed', now, '', '', '', 0, 0, 0, 0, {}, '', about })
end

-- An answer about a correction: its entry where there is one, and a number.
local function adjust_reply(tag, entry, number)
  return cmsgpack.pack({ tag, now, { entry }, number or 0 })
end

-- Remembers a correction by its key, for ever, without the context of its call: that may hold telephone
-- numbers, which are erased from the journal and not from here. The entry as it is remembered.
local function remember(key, fingerprint, entry)
  local kept = { unpack(entry) }
  kept[ENTRY.context] = ''
  put(ADJUSTMENTS, key, { fingerprint, kept })
  return kept
end

-- Sets a block ({ since, reason, operator }), or lifts it (false), and notes that; `by` is 'operator' or
-- 'file'.
local function keep_block(field, payer, by, block, context)
  put(BLOCKS, field, block)
  local kind = block and 'payer_blocked' or 'payer_unblocked'
  note({ kind, now, by, payer, '', 0, 0, 0, 0, {}, context, '' })
end

-- Adds a lot in its place in the drawing order, told by `kind`, and collects from it what earlier calls
-- fell short of, where the tenant says so (D7).
local function add_lot(kind, id, amount, starts, ends, context)
  local found = wallet()
  local paid = found[WALLET.deduct_shortfall] and now < ends
    and math.min(found[WALLET.owed], amount) or 0
  local bucket = { amount, 0, 0, paid, 0, 0, starts, ends, 0 }
  put(LOTS, 'l:' .. id, bucket)
  note_lot(kind, id, posting('l:' .. id, amount, 0, 0, 0), context)
  if paid > 0 then
    found[WALLET.owed] = found[WALLET.owed] - paid
    put(LOTS, 'w', found)
    note_lot('shortfall_collected', id, posting('l:' .. id, 0, 0, paid, 0), '')
  end
  if available(bucket) > 0 then enlist_lot(id) end
end

-- Charges `used`, gives back everything else that the call holds, and notes that.
local function settle_call(kind, id, call, used, report)
  local field, held, spent = settle_plenty(call, used)
  if not field then return note_call(kind, id, call, settle_lines(call, used), report) end
  note_one(kind, id, call, field, -held, spent, report)
  if #alerts > 0 then note_alerts() end
end

-- Records usage that nothing was granted for.
local function park(id, call, used, report)
  if used <= call[CALL.parked] then return end
  call[CALL.parked] = used
  put(CALLS, id, call)
  note_call('parked', id, call, {}, report)
end

-- Holds more, so that the call can run to `target`, and lengthens the grant; never shortens it. The postings; nil where only
-- one pool holds more, then its account and how much.
local function lengthen(call, target)
  local shape = shape_of(call)
  local terms = shape[SHAPE.terms]
  local postings, longest, reach = {}, terms[TERMS.longest], REACH.full
  if longest > 0 and target > longest then
    target, reach = longest, REACH.exhausted
  end
  local covered, field, added = target, nil, nil
  if not terms[TERMS.free] then
    added = not has_money(call) and hold_plenty(shape, target, call[CALL.held], call[CALL.spent])
    if added then
      if added > 0 then postings, field = nil, shape[SHAPE.pools][1].field end
      call[CALL.held] = call[CALL.held] + added
    else
      local added_to, money, length, reached = reserve(target, pool_sides(call), credit_side(call))
      if reached ~= REACH.full then reach = reached end
      covered = math.min(length, target)
      postings = hold(call, added_to, money)
    end
  end
  call[CALL.reach] = reach
  if covered > call[CALL.granted] then call[CALL.granted] = covered end
  call[CALL.granted_from] = call[CALL.used]
  return postings, field, added
end

-- Charges the proven usage in the place of a higher one that was presumed, once somebody has reported what it
-- was; nothing where nothing is to be given back.
local function take_back_presumed(call)
  local presumed = call[CALL.presumed]
  call[CALL.presumed] = 0
  return call[CALL.used] < presumed and settle_lines(call, call[CALL.used], true) or nil
end

local function reopen(id, call, target)
  local postings = take_back_presumed(call) or {}
  retained[id] = false
  call[CALL.state] = STATE.answered
  call[CALL.ended_at] = 0
  call[CALL.money_duration] = 0
  call[CALL.shortfall_duration] = 0
  call[CALL.shortfall_money] = 0
  local more, field, added = lengthen(call, target)
  for _, posted in ipairs(more or { posting(field, 0, added, 0, 0) }) do
    postings[#postings + 1] = posted
  end
  open(id, call, in_call_deadline(call))
  note_call('reopened', id, call, postings)
end

-- Expiry.

local sweep
do
  local function expire(id, keep)
    local call = read_call(id)
    if not call then
      deadlines[id] = false
      return
    end
    fetch_accounts_of(call)
    local kind, usage = 'expired', call[CALL.used]
    if call[CALL.state] == STATE.answered and call[CALL.granted] > usage
      and shape_of(call)[SHAPE.terms][TERMS.charge_granted_when_lost] then
      kind, usage = 'expired_as_granted', call[CALL.granted]
      call[CALL.presumed] = usage
    end
    settle_call(kind, id, call, usage, '')
    close(id, call, STATE.expired, keep)
  end

  -- The first `most` calls of a list that are due, and when they were. What this run has changed is not among
  -- them: Redis lists it as it was until `save`, and another command of the run has swept it, or made a call of
  -- that name anew.
  local function due_of(key, changes, most)
    local struck, due = 0, {}
    for _ in pairs(changes) do struck = struck + 1 end
    local listed = redis.call(
      'ZRANGE', key, '-inf', now, 'BYSCORE', 'LIMIT', 0, most + struck, 'WITHSCORES')
    for i = 1, #listed, 2 do
      if #due < most and changes[listed[i]] == nil then
        due[#due + 1] = { listed[i], tonumber(listed[i + 1]) }
      end
    end
    return due
  end

  -- Expires at most `most` due holds and forgets at most `most` other calls; how many of each.
  function sweep(most, ended_retention)
    local due, old = {}, due_of(RETAINED, retained, most)
    for i, one in ipairs(due_of(DEADLINES, deadlines, most)) do due[i] = one[1] end
    if #due > 0 then fetch(CALLS, due) end
    for _, id in ipairs(due) do expire(id, now + ended_retention * 1000) end
    if #due > 0 and ended_retention <= 0 then
      -- What has just expired is to be forgotten at once, after everything that is older.
      for _, id in ipairs(due) do old[#old + 1] = { id, now + ended_retention * 1000 } end
      table.sort(old, function(a, b)
        return a[2] < b[2] or (a[2] == b[2] and precedes(a[1], b[1]))
      end)
    end
    local forgotten = math.min(#old, most)
    for i = 1, forgotten do
      local id = old[i][1]
      put(CALLS, id, false)
      retained[id] = false
    end
    return #due, forgotten
  end
end

-- How far the journal was trimmed and erased, and who rewrites it now; to be changed.
local function upkeep_state()
  return read(UPKEEP, 'j') or { '', 0, 0, 0, 0 }
end

-- How far the ledger has come, as ledger/marks.rs says it: an epoch and a sequence below 2^40 in one.

local function unpacked_mark(mark)
  local sequence = mark % 1099511627776
  return (mark - sequence) / 1099511627776, sequence
end

local function packed_mark(epoch, sequence)
  return string.format('%.0f', epoch * 1099511627776 + sequence)
end

-- Runs a verb for a sidecar and counts that, unless the ledger has lost something that the sidecar was
-- acknowledged: then nothing is done. The answer is the verb's, and behind it two numbers, epoch and sequence; those
-- alone where nothing is done. The last key is that of the sequences; the last arguments are the sidecar's field in
-- it, and what it was acknowledged.
local function counted(verb, keys, arguments)
  local last, count = #keys, #arguments
  local key, field = keys[last], arguments[count - 1]
  local known_epoch, known = unpacked_mark(tonumber(arguments[count]))
  keys[last], arguments[count], arguments[count - 1] = nil, nil, nil
  local mark = call_redis('HINCRBY', key, field, '1')
  if mark == 1 then
    -- The first run of a sidecar, or all are lost.
    local raised = tonumber(redis.call('HGET', key, 'e') or 0)
    if raised > 0 then mark = redis.call('HINCRBY', key, field, packed_mark(raised, 0)) end
  end
  local epoch, sequence = unpacked_mark(mark)
  if sequence <= known or epoch < known_epoch then
    redis.call('HINCRBY', key, field, -1)
    return { epoch, sequence - 1 }
  end
  local answers, parted = verb(keys, arguments)
  if not parted then return { answers, epoch, sequence } end
  answers[parted + 1], answers[parted + 2] = epoch, sequence
  return answers
end

-- Forgets everything that an earlier command knew.
local function begin()
  if not pack then
    call_redis, pack, unpack_first = redis.call, cmsgpack.pack, cmsgpack.unpack_limit
    byte, part, write_fixed, read_fixed = string.byte, string.sub, struct.pack, struct.unpack
    following = next
  end
  ACCOUNTS, SIZES, POOLS, LOTS, CALLS, DEADLINES, RETAINED, JOURNAL = nil
  PROFILES, NUMBERS, READERS, ADJUSTMENTS, BLOCKS, JOURNAL_NEW, JOURNAL_OLD, UPKEEP = nil
  SEQUENCE = nil
  if not is_empty then
    -- It failed, or wrote nothing.
    hashes, spare, wanted, parts = {}, {}, {}, {}
    deadlines, retained, opened_pools, notes = {}, {}, {}, {}
    wanted_count = 0
  end
  if #alerts > 0 then alerts = {} end
  is_empty = false
end
