-- The ledger's arithmetic, as in src/ledger: calendar periods and counters. It stands before each script that counts.
-- All numbers are whole and below 2^53, where doubles are exact. Times are microseconds since the epoch, starts of
-- periods are seconds.

local MAX_CREDITS = 9007199254740991
local PERIODS = { 'hour', 'day', 'month', 'none' }
local SLOT_OF = { hour = 'hour', day = 'day', month = 'month', none = 'ever' }

-- Ends the script's work with "this record cannot be read": which key, and what is wrong with it.
local function unreadable(key, why)
  return { 'unreadable', key, why }
end

-- The time: as given (tests), or the server's.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- Reads a whole number; nil: it is none.
local function whole(written)
  return string.match(written, '^%d+$') and tonumber(written)
end

local function text(number)
  return string.format('%.0f', number)
end

-- The day, counted from the epoch, that begins the month around a day. Years are counted from the first of March, so
-- that the leap day comes last and the lengths of months follow one line.
local function first_of_month(day)
  local shifted = day + 719468
  local era = math.floor(shifted / 146097)
  local of_era = shifted - era * 146097
  local year = math.floor(
    (of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * of_year + 2) / 153)
  local of_month = of_year - math.floor((153 * month + 2) / 5)
  return day - of_month
end

-- When each period around a time began.
local starts_of_hour = {}
local function period_starts(now)
  local seconds = (now - math.fmod(now, 1000000)) / 1000000
  local hour = seconds - math.fmod(seconds, 3600)
  if not starts_of_hour[hour] then
    local day = math.floor(seconds / 86400)
    starts_of_hour[hour] = { hour = hour, day = day * 86400, month = first_of_month(day) * 86400, none = 0 }
  end
  return starts_of_hour[hour]
end

-- Whole seconds until a period starts anew; nil: never.
local function resets_in(period, starts, now)
  local ends
  if period == 'hour' then
    ends = starts.hour + 3600
  elseif period == 'day' then
    ends = starts.day + 86400
  elseif period == 'month' then
    -- No month has more than 31 days, and none less than 28: 32 days on is always in the next one.
    ends = first_of_month(starts.month / 86400 + 32) * 86400
  else
    return nil
  end
  return ends - (now - math.fmod(now, 1000000)) / 1000000
end

-- Reads a limit, `100000/month`. Returns it, or nil and true if the text is none.
local function parse_limit(written)
  if written == '' then return nil, false end
  local credits, period = string.match(written, '^(%d+)/(%a+)$')
  if not credits then
    credits, period = string.match(written, '^(%d+)$'), 'none'
  end
  if not credits or not SLOT_OF[period] or tonumber(credits) > MAX_CREDITS then return nil, true end
  return { credits = tonumber(credits), period = period }, false
end

-- Reads a rate and its burst. Returns them, or nil and true if the texts are none.
local function parse_rate(rate, burst)
  if rate == '' and burst == '' then return nil, false end
  local function requests(written)
    local number = whole(written)
    return number and number >= 1 and number <= 1000000 and number
  end
  local per_second, at_once = requests(rate), requests(burst)
  if not per_second or not at_once then return nil, true end
  return {
    per_second = per_second,
    spacing = math.floor((1000000 + per_second - 1) / per_second),
    burst = at_once,
  }, false
end

-- The fields of a counter, in the order in which they are read and written.
local COUNTER_FIELDS = {
  'stranded',
  'hour_start', 'hour_used', 'hour_leased',
  'day_start', 'day_used', 'day_leased',
  'month_start', 'month_used', 'month_leased',
  'ever_start', 'ever_used', 'ever_leased',
}

-- Reads a counter; one that was never written is empty, and one from before there were leases has leased nothing. Nil: it
-- cannot be read.
local function read_counter(key)
  local written = redis.call('HMGET', key, unpack(COUNTER_FIELDS))
  local any, sound = false, true
  for at = 1, #COUNTER_FIELDS do
    any = any or written[at]
  end
  local nothing = nil
  if not any and redis.call('EXISTS', key) == 0 then nothing = 0 end
  local function number(at, otherwise)
    local value = otherwise
    if written[at] then value = whole(written[at]) end
    sound = sound and value
    return value
  end
  -- What is written already is not written again.
  local counter, before = { stranded = number(1, 0) }, {}
  for at, period in ipairs(PERIODS) do
    local first = at * 3 - 1
    local start, used, leased = number(first, nothing), number(first + 1, nothing), number(first + 2, 0)
    counter[period] = { start = start, used = used, leased = leased }
    before[first], before[first + 1], before[first + 2] =
      written[first] and start, written[first + 1] and used, written[first + 2] and leased
  end
  before[1] = written[1] and counter.stranded
  counter.before = before
  return sound and counter or nil
end

local function write_counter(key, counter)
  local fields, before = {}, counter.before
  local function put(at, number)
    if before[at] ~= number then
      local to = #fields
      fields[to + 1], fields[to + 2] = COUNTER_FIELDS[at], text(number)
      before[at] = number
    end
  end
  put(1, counter.stranded)
  for at, period in ipairs(PERIODS) do
    local slot, first = counter[period], at * 3 - 1
    put(first, slot.start)
    put(first + 1, slot.used)
    put(first + 2, slot.leased)
  end
  if #fields > 0 then redis.call('HSET', key, unpack(fields)) end
end

-- What was used, or is leased, in a period. A clock that steps back does not bring an older period, and its credits,
-- back.
local function used_in(counter, period, starts)
  local slot = counter[period]
  return slot.start >= starts[period] and slot.used or 0
end

local function leased_in(counter, period, starts)
  local slot = counter[period]
  return slot.start >= starts[period] and slot.leased or 0
end

-- Counts credits as leased.
local function lease_out(counter, credits, starts)
  for _, period in ipairs(PERIODS) do
    local slot = counter[period]
    if slot.start < starts[period] then
      slot.start, slot.used, slot.leased = starts[period], 0, 0
    end
    slot.leased = math.min(slot.leased + credits, MAX_CREDITS)
  end
end

-- Ends a lease of which so much is used for good, in the periods it was granted in, where those are still the current
-- ones.
local function unlease(counter, held, spent, starts)
  for _, period in ipairs(PERIODS) do
    local slot = counter[period]
    if slot.start == starts[period] then
      slot.leased = math.max(slot.leased - held, 0)
      slot.used = math.min(slot.used + spent, MAX_CREDITS)
    end
  end
end

-- Puts the true figure in place of one that was counted for good.
local function correct(counter, counted, spent, starts)
  for _, period in ipairs(PERIODS) do
    local slot = counter[period]
    if slot.start == starts[period] then
      slot.used = math.min(math.max(slot.used - counted, 0) + spent, MAX_CREDITS)
    end
  end
end

-- How long keys with usage of a day are to live (ms): a little longer than it is kept.
local function usage_left(day_ends, kept_for, now)
  return math.max(math.ceil((day_ends * 1000000 + kept_for - now) / 1000), 0) + 3600000
end

-- Before anything is counted on a day: says of its sums, and of those of its month, whether they will hold all of it. That is so
-- where nothing was counted yet.
local function begin_sums(active, of_day, ...)
  if redis.call('EXISTS', of_day) == 0 and redis.call('EXISTS', active) == 0 then
    redis.call('HSET', of_day, 'complete', '1')
  end
  local of_month, complete = { ... }, nil
  for _, key in ipairs(of_month) do
    if redis.call('EXISTS', key) == 0 then
      if not complete then
        complete = '1'
        local month = string.sub(active, 1, -3)
        for day = 1, 31 do
          if redis.call('EXISTS', month .. string.format('%02d', day)) == 1 then complete = '0' end
        end
      end
      redis.call('HSET', key, 'complete', complete)
    end
  end
end

-- Writes down when something was seen last: now, or in its last hour, where that is over.
local function see(seen, field, last_second, now)
  if last_second == '' then return end
  local at = math.min(math.floor(now / 1000000), tonumber(last_second))
  local before = tonumber(redis.call('HGET', seen, field) or '0') or 0
  if at > before then redis.call('HSET', seen, field, text(at)) end
end
