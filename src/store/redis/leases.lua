-- Leases: how one is kept, and the closing of those that expired. It stands behind ledger.lua, before each script about
-- leases.
--
-- A lease is the text `ID/POOL|NODE|granted|taken_at|expires_at|open or stranded|kept_until`, or `closed|kept_until`;
-- times are microseconds. One that is not open is, from `kept_until` on, as if it had never been; the key goes
-- away a little later.
--
-- Redis Cluster: all keys of an account have its hash tag and so are in one slot. `close_expired` makes names of keys
-- that are not among the script's KEYS, from the name of the account's open leases; they have the same tag.

local KEY_MARGIN_MS = 60000
local CLOSED_ON_THE_WAY = 8
local PUT_OFF = 3600000000

-- Reads many texts, `false` where there is none. Fails where a key holds something of another type.
local function read_texts(keys)
  local values, absent = call('MGET', unpack(keys)), {}
  for at, value in ipairs(values) do
    if not value then absent[#absent + 1] = keys[at] end
  end
  if #absent > 0 and call('EXISTS', unpack(absent)) > 0 then
    for _, key in ipairs(absent) do
      call('GET', key)
    end
  end
  return values
end

-- Reads a lease from its text. Returns it; nil: there is none; nil and true: it is not of its form.
local function parse_lease(written, now)
  if not written then return nil end
  local kept_until = match(written, '^closed|(%d+)$')
  local lease
  if kept_until then
    lease = { state = 'closed', kept_until = tonumber(kept_until) }
  else
    local drawn_on, node, granted, taken_at, expires_at, state, kept =
      match(written, '^([^|]+)|([^|]+)|(%d+)|(%d+)|(%d+)|(%a+)|(%d+)$')
    if state ~= 'open' and state ~= 'stranded' then return nil, true end
    lease = {
      drawn_on = drawn_on,
      node = node,
      granted = tonumber(granted),
      taken_at = tonumber(taken_at),
      expires_at = tonumber(expires_at),
      state = state,
      kept_until = tonumber(kept),
    }
  end
  if lease.state ~= 'open' and lease.kept_until <= now then return nil end
  return lease
end

-- Reads one lease.
local function read_lease(key, now)
  return parse_lease(call('GET', key), now)
end

local function lease_text(lease)
  if lease.state == 'closed' then
    return format('closed|%d', lease.kept_until)
  end
  return format('%s|%s|%d|%d|%d|%s|%d', lease.drawn_on, lease.node, lease.granted, lease.taken_at, lease.expires_at,
    lease.state, lease.kept_until)
end

local function write_lease(key, lease, now)
  local written = lease_text(lease)
  if lease.state == 'open' then
    call('SET', key, written)
  else
    local left = ceil((lease.kept_until - now) / 1000)
    call('SET', key, written, 'PX', text(max(left, 0) + KEY_MARGIN_MS))
  end
end

-- Closes leases of the account that expired, at most so many, as spent in full. Returns how many.
local function close_expired(open_leases, most, stranded_for, now)
  local base = string.sub(open_leases, 1, -#'leases' - 1)
  local due = call('ZRANGEBYSCORE', open_leases, '-inf', text(now), 'LIMIT', 0, most)
  local closed = 0
  for _, id in ipairs(due) do
    local key = base .. 'lease:' .. id
    local lease = read_lease(key, now)
    local token, pool
    if lease and lease.state == 'open' and lease.expires_at <= now then
      token, pool = match(lease.drawn_on, '^([^/]+)/([^/]+)$')
    end
    if not token then
      -- One that cannot be read goes on counting as leased, and is not in the way of the others.
      call('ZREM', open_leases, id)
    else
      local of_token, of_account = base .. 'used:' .. token .. ':' .. pool, base .. 'used:' .. pool
      local by_token, by_account = read_counter(of_token), read_counter(of_account)
      if by_token and by_account then
        local starts = period_starts(lease.taken_at)
        unlease(by_token, lease.granted, lease.granted, starts)
        unlease(by_account, lease.granted, lease.granted, starts)
        for _, counter in ipairs({ by_token, by_account }) do
          counter[STRANDED] = min(counter[STRANDED] + lease.granted, MAX_CREDITS)
        end
        write_counter(of_token, by_token)
        write_counter(of_account, by_account)
        lease.state, lease.kept_until = 'stranded', now + stranded_for
        write_lease(key, lease, now)
        call('ZREM', open_leases, id)
        closed = closed + 1
      else
        call('ZADD', open_leases, text(now + PUT_OFF), id)
      end
    end
  end
  return closed
end
