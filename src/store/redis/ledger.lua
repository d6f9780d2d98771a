-- The ledger's arithmetic, as in src/ledger: calendar periods and counters. It stands before each script that counts.
-- All numbers are whole and below 2^53, where doubles are exact. Times are microseconds since the epoch, starts of
-- periods are seconds.

local call, min, max, floor, ceil, fmod = redis.call, math.min, math.max, math.floor, math.ceil, math.fmod
local format, find, match = string.format, string.find, string.match

local MAX_CREDITS = 9007199254740991
-- The periods, and where each begins in a counter.
local AT = { hour = 2, day = 5, month = 8, none = 11 }

-- Ends the script's work with "this record cannot be read": which key, and what is wrong with it.
local function unreadable(key, why)
  return { 'unreadable', key, why }
end

-- The time: as given (tests), or the server's.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- Reads a whole number; nil: it is none. Most come again and again: times of periods, small counts.
local wholes = {}
local function whole(written)
  local number = wholes[written]
  if number == nil then
    number = find(written, '^%d+$') and tonumber(written) or false
    wholes[written] = number
  end
  return number or nil
end

local texts = {}
local function text(number)
  local written = texts[number]
  if not written then
    written = format('%d', number)
    texts[number] = written
  end
  return written
end

-- The day, counted from the epoch, that begins the month around a day. Years are counted from the first of March, so
-- that the leap day comes last and the lengths of months follow one line.
local function first_of_month(day)
  local shifted = day + 719468
  local era = floor(shifted / 146097)
  local of_era = shifted - era * 146097
  local year = floor(
    (of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * of_year + 2) / 153)
  local of_month = of_year - floor((153 * month + 2) / 5)
  return day - of_month
end

-- When each period around a time began, by period, and by where the period begins in a counter.
local starts_of_hour = {}
local function period_starts(now)
  local seconds = (now - fmod(now, 1000000)) / 1000000
  local hour = seconds - fmod(seconds, 3600)
  if not starts_of_hour[hour] then
    local day = floor(seconds / 86400)
    local starts = { hour = hour, day = day * 86400, month = first_of_month(day) * 86400, none = 0 }
    starts[2], starts[5], starts[8], starts[11] = starts.hour, starts.day, starts.month, starts.none
    starts_of_hour[hour] = starts
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
  return ends - (now - fmod(now, 1000000)) / 1000000
end

-- Reads a limit, `100000/month`. Returns it, or nil and true if the text is none. Many tokens have the same.
local limits = {}
local function parse_limit(written)
  if written == '' then return nil, false end
  if limits[written] then return limits[written], false end
  local credits, period = match(written, '^(%d+)/(%a+)$')
  if not credits then
    credits, period = match(written, '^(%d+)$'), 'none'
  end
  if not credits or not AT[period] or tonumber(credits) > MAX_CREDITS then return nil, true end
  limits[written] = { credits = tonumber(credits), period = period }
  return limits[written], false
end

local function requests(written)
  local number = whole(written)
  return number and number >= 1 and number <= 1000000 and number
end

-- Reads a rate and its burst. Returns them, or nil and true if the texts are none.
local function parse_rate(rate, burst)
  if rate == '' and burst == '' then return nil, false end
  local per_second, at_once = requests(rate), requests(burst)
  if not per_second or not at_once then return nil, true end
  return {
    per_second = per_second,
    spacing = floor((1000000 + per_second - 1) / per_second),
    burst = at_once,
  }, false
end

-- A counter is a list: what is stranded, then for each period its start, what is used and what is leased. These are its
-- fields in that order.
local COUNTER_FIELDS = {
  'stranded',
  'hour_start', 'hour_used', 'hour_leased',
  'day_start', 'day_used', 'day_leased',
  'month_start', 'month_used', 'month_leased',
  'ever_start', 'ever_used', 'ever_leased',
}
local STRANDED = 1

-- Reads a counter; one that was never written is empty, and one from before there were leases has leased nothing. Nil: it
-- cannot be read.
local function read_counter(key)
  local written = call('HMGET', key, unpack(COUNTER_FIELDS))
  -- What is written already is not written again.
  local counter, before, any = {}, {}, false
  for at = 1, 13 do
    if written[at] then
      local number = whole(written[at])
      if not number then return nil end
      counter[at], before[at], any = number, number, true
    end
  end
  local is_new = not any and call('EXISTS', key) == 0
  for at = 1, 13 do
    if not counter[at] then
      -- Only these may be missing alone: what is stranded, and what is leased.
      if not is_new and at % 3 ~= 1 then return nil end
      counter[at] = 0
    end
  end
  counter.before = before
  return counter
end

local function write_counter(key, counter)
  local fields, before, count = {}, counter.before, 0
  for at = 1, 13 do
    local number = counter[at]
    if before[at] ~= number then
      fields[count + 1], fields[count + 2] = COUNTER_FIELDS[at], text(number)
      count, before[at] = count + 2, number
    end
  end
  if count > 0 then call('HSET', key, unpack(fields, 1, count)) end
end

-- What was used, or is leased, in a period. A clock that steps back does not bring an older period, and its credits,
-- back.
local function used_in(counter, period, starts)
  local at = AT[period]
  return counter[at] >= starts[period] and counter[at + 1] or 0
end

local function leased_in(counter, period, starts)
  local at = AT[period]
  return counter[at] >= starts[period] and counter[at + 2] or 0
end

-- Counts credits as leased.
local function lease_out(counter, credits, starts)
  for at = 2, 11, 3 do
    if counter[at] < starts[at] then
      counter[at], counter[at + 1], counter[at + 2] = starts[at], 0, 0
    end
    counter[at + 2] = min(counter[at + 2] + credits, MAX_CREDITS)
  end
end

-- Ends a lease of which so much is used for good, in the periods it was granted in, where those are still the current
-- ones.
local function unlease(counter, held, spent, starts)
  for at = 2, 11, 3 do
    if counter[at] == starts[at] then
      counter[at + 1] = min(counter[at + 1] + spent, MAX_CREDITS)
      counter[at + 2] = max(counter[at + 2] - held, 0)
    end
  end
end

-- Puts the true figure in place of one that was counted for good.
local function correct(counter, counted, spent, starts)
  for at = 2, 11, 3 do
    if counter[at] == starts[at] then
      counter[at + 1] = min(max(counter[at + 1] - counted, 0) + spent, MAX_CREDITS)
    end
  end
end

-- How long keys with usage of a day are to live (ms): a little longer than it is kept.
local function usage_left(day_ends, kept_for, now)
  return max(ceil((day_ends * 1000000 + kept_for - now) / 1000), 0) + 3600000
end

-- Before anything is counted on a day: says of its sums, and of those of its month, whether they will hold all of it. That is so
-- where nothing was counted yet.
local function begin_sums(active, of_day, ...)
  if call('EXISTS', of_day) == 0 and call('EXISTS', active) == 0 then
    call('HSET', of_day, 'complete', '1')
  end
  local of_month, complete = { ... }, nil
  for _, key in ipairs(of_month) do
    if call('EXISTS', key) == 0 then
      if not complete then
        complete = '1'
        local month = string.sub(active, 1, -3)
        for day = 1, 31 do
          if call('EXISTS', month .. format('%02d', day)) == 1 then complete = '0' end
        end
      end
      call('HSET', key, 'complete', complete)
    end
  end
end

-- Writes down when something was seen last: now, or in its last hour, where that is over.
local function see(seen, field, last_second, now)
  if last_second == '' then return end
  local at = min(floor(now / 1000000), tonumber(last_second))
  local before = tonumber(call('HGET', seen, field) or '0') or 0
  if at > before then call('HSET', seen, field, text(at)) end
end
