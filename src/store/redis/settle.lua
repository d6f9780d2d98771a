-- Closes leases of one account: what was spent is used for good, the rest is given back, and the usage it paid for is
-- counted. A stranded lease gets its true figure. Said again it changes nothing. A lease that is not known is kept as
-- closed, so that a reserve that is still under way grants nothing. What all of them count in, the account's counter and
-- the sums of a day, is read and written once. A lease that cannot be settled is left as it is; the others are settled.
--
-- KEYS  1 the account's open leases · 2 when tokens were last seen
--       for each day with usage: whose usage there is on that day · sums by hour · sums of the day ·
--       by token · by data set · by token of the month · by data set of the month
--       for each lease: the lease · token's counter · account's counter · for each of its days: the token's cells
-- ARGV  1 how long a closed lease is kept (µs) · 2 how long an unknown one (µs) · 3 how long usage is kept (µs)
--       4 time (µs), empty: the server's · 5 how many days, for each: its end (s) · its month's end (s)
--       how many leases, for each: what is drawn on (`ID/POOL`) · its id · the token's id · what was spent ·
--       the last second of the last hour with usage, empty: there is none · how many days, for each: which of those above ·
--       how many cells, for each: HH · pool · operation · data set · requests · credits · bytes
-- Returns for each lease a list: settled, unknown (nothing was counted), or unreadable, key, why

local DAY_KEYS = 7
local AT_ONCE = 1000

local now = clock(ARGV[4])
local key_at, arg_at = 2, 4
local function next_key()
  key_at = key_at + 1
  return KEYS[key_at]
end
local function next_arg()
  arg_at = arg_at + 1
  return ARGV[arg_at]
end

local days = {}
for at = 1, tonumber(next_arg()) do
  local day = { keys = {}, tokens = {} }
  day.ends = tonumber(next_arg())
  day.month_ends = tonumber(next_arg())
  for of_day = 1, DAY_KEYS do
    day.keys[of_day] = next_key()
  end
  days[at] = day
end

-- What cells and sums hold, by key and field. All is read before anything is written.
local books, book_keys = {}, {}
local function note(counts, key, field, arg)
  if not books[key] then
    books[key] = { fields = {}, figures = {} }
    table.insert(book_keys, key)
  end
  if books[key].figures[field] == nil then
    books[key].figures[field] = false
    table.insert(books[key].fields, field)
  end
  table.insert(counts, { key, field, arg })
end

local counters, counter_keys = {}, {}
local function counter(key)
  if counters[key] == nil then
    counters[key] = read_counter(key) or false
    table.insert(counter_keys, key)
  end
  return counters[key]
end

-- Whether a lease can be closed: nothing, if so; else what is answered.
local taken = {}
local function hindrance(closing)
  local lease, bad_lease = read_lease(closing.key, now)
  if bad_lease then return unreadable(closing.key, 'it is not of its form') end
  if not lease then
    write_lease(closing.key, { state = 'closed', kept_until = now + tonumber(ARGV[2]) }, now)
    return { 'unknown' }
  end
  if lease.state == 'closed' or lease.drawn_on ~= closing.drawn_on or taken[closing.key] then return { 'unknown' } end
  for _, key in ipairs(closing.counters) do
    if not counter(key) then return unreadable(key, 'it is not a counter') end
  end
  taken[closing.key], closing.lease = true, lease
  return nil
end

local all = {}
for at = 1, tonumber(next_arg()) do
  local closing = { counts = {}, days = {} }
  closing.drawn_on, closing.id, closing.token = next_arg(), next_arg(), next_arg()
  closing.spent, closing.last_second = tonumber(next_arg()), next_arg()
  closing.key = next_key()
  closing.counters = { next_key(), next_key() }
  closing.answer = hindrance(closing)
  for _ = 1, tonumber(next_arg()) do
    local day, cells = days[tonumber(next_arg())], next_key()
    table.insert(closing.days, { of = day, cells = cells })
    for _ = 1, tonumber(next_arg()) do
      local hour, pool, operation, dataset = next_arg(), next_arg(), next_arg(), next_arg()
      local figures = arg_at + 1
      arg_at = arg_at + 3
      if not closing.answer then
        local field = table.concat({ hour, pool, operation, dataset }, '|')
        note(closing.counts, cells, field, figures)
        note(closing.counts, day.keys[2], field, figures)
        note(closing.counts, day.keys[3], pool .. '|' .. operation, figures)
        for by = 4, 6, 2 do
          note(closing.counts, day.keys[by], pool .. '|' .. closing.token, figures)
          note(closing.counts, day.keys[by + 1], pool .. '|' .. dataset, figures)
        end
      end
    end
  end
  all[at] = closing
end

-- Reads many fields of a hash.
local function read_fields(key, fields)
  local values = {}
  for from = 1, #fields, AT_ONCE do
    local part = redis.call('HMGET', key, unpack(fields, from, math.min(from + AT_ONCE - 1, #fields)))
    for at, value in ipairs(part) do
      values[from + at - 1] = value
    end
  end
  return values
end

for key, book in pairs(books) do
  for at, written in ipairs(read_fields(key, book.fields)) do
    local requests, credits, bytes = string.match(written or '0 0 0', '^(%d+) (%d+) (%d+)$')
    if requests then book.figures[book.fields[at]] = { tonumber(requests), tonumber(credits), tonumber(bytes) } end
  end
end

local settled = {}
for _, closing in ipairs(all) do
  for _, count in ipairs(closing.counts) do
    if not closing.answer and not books[count[1]].figures[count[2]] then
      closing.answer = unreadable(count[1], 'it holds what is no usage')
    end
  end
  if not closing.answer then
    closing.answer = { 'settled' }
    table.insert(settled, closing)
  end
end

local closed_ids, seen_tokens, last_seconds, touched = {}, {}, {}, {}
for _, closing in ipairs(settled) do
  local lease, starts = closing.lease, period_starts(closing.lease.taken_at)
  for _, key in ipairs(closing.counters) do
    if lease.state == 'open' then
      unlease(counters[key], lease.granted, closing.spent, starts)
    else
      correct(counters[key], lease.granted, closing.spent, starts)
      counters[key].stranded = math.max(counters[key].stranded - lease.granted, 0)
    end
    touched[key] = true
  end
  for _, count in ipairs(closing.counts) do
    local figures = books[count[1]].figures[count[2]]
    for part = 1, 3 do
      figures[part] = math.min(figures[part] + tonumber(ARGV[count[3] + part - 1]), MAX_CREDITS)
    end
    figures.counted = true
  end
  for _, day in ipairs(closing.days) do
    table.insert(day.of.tokens, closing.token)
    day.of.cells = day.of.cells or {}
    day.of.cells[day.cells] = true
  end
  table.insert(closed_ids, closing.id)
  if closing.last_second ~= '' then
    local last = tonumber(closing.last_second)
    if not last_seconds[closing.token] then table.insert(seen_tokens, closing.token) end
    last_seconds[closing.token] = math.max(last_seconds[closing.token] or 0, last)
  end
end

for _, key in ipairs(counter_keys) do
  if touched[key] then write_counter(key, counters[key]) end
end
if #closed_ids > 0 then redis.call('ZREM', KEYS[1], unpack(closed_ids)) end
for _, closing in ipairs(settled) do
  write_lease(closing.key, { state = 'closed', kept_until = now + tonumber(ARGV[1]) }, now)
end
for _, day in ipairs(days) do
  if #day.tokens > 0 then
    begin_sums(day.keys[1], day.keys[3], day.keys[6], day.keys[7])
    redis.call('SADD', day.keys[1], unpack(day.tokens))
  end
end

-- Writes many fields of a hash.
local function write_fields(key, pairs_of)
  for from = 1, #pairs_of, AT_ONCE do
    redis.call('HSET', key, unpack(pairs_of, from, math.min(from + AT_ONCE - 1, #pairs_of)))
  end
end

for _, key in ipairs(book_keys) do
  local written = {}
  for _, field in ipairs(books[key].fields) do
    local figures = books[key].figures[field]
    if figures and figures.counted then
      table.insert(written, field)
      table.insert(written, string.format('%.0f %.0f %.0f', figures[1], figures[2], figures[3]))
    end
  end
  write_fields(key, written)
end
for _, day in ipairs(days) do
  if #day.tokens > 0 then
    local left = text(usage_left(day.ends, tonumber(ARGV[3]), now))
    local month_left = text(usage_left(day.month_ends, tonumber(ARGV[3]), now))
    for cells in pairs(day.cells) do
      redis.call('PEXPIRE', cells, left)
    end
    for at, key in ipairs(day.keys) do
      redis.call('PEXPIRE', key, at < 6 and left or month_left)
    end
  end
end

-- When tokens were last seen: now, or in their last hour, where that is over.
local seen = {}
for at, before in ipairs(read_fields(KEYS[2], seen_tokens)) do
  local last = math.min(math.floor(now / 1000000), last_seconds[seen_tokens[at]])
  if last > (tonumber(before or '0') or 0) then
    table.insert(seen, seen_tokens[at])
    table.insert(seen, text(last))
  end
end
write_fields(KEYS[2], seen)

local answers = {}
for at, closing in ipairs(all) do
  answers[at] = closing.answer
end
return answers
