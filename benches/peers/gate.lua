-- Peer 5: Tollgate's checks in nginx's Lua, with one call to Redis for each request (check.lua does the rest there).
-- Written to be quick: the digest by OpenSSL, patterns compiled once, one round trip over a kept connection, no
-- client library in between, headers set from what that call told.
local redis_port, script_path = ...

local ffi = require "ffi"
ffi.cdef [[
unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *digest);
unsigned char *ngx_hex_dump(unsigned char *to, const unsigned char *from, size_t length);
]]
local C = ffi.C
local digest_bytes = ffi.new("unsigned char[32]")
local digest_hex = ffi.new("unsigned char[64]")

local function digest(token)
    C.SHA256(token, #token, digest_bytes)
    C.ngx_hex_dump(digest_hex, digest_bytes, 32)
    return ffi.string(digest_hex, 64)
end

local function read_file(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

local SCRIPT = read_file(script_path)
local SHA = ngx.sha1_bin(SCRIPT):gsub(".", function(byte) return string.format("%02x", byte:byte()) end)

local STATUS = {
    token_missing = 401, token_conflict = 400, token_invalid = 403, token_disabled = 403, token_expired = 403,
    domain_denied = 403, dataset_denied = 403, credits_exhausted = 402, store_unavailable = 503,
}
local OPERATION = {GET = "read", HEAD = "read", POST = "write", PUT = "write", PATCH = "write", DELETE = "delete"}

local function deny(code)
    ngx.status = STATUS[code]
    ngx.header["Content-Type"] = "application/problem+json"
    local body = '{"type":"about:blank","status":' .. STATUS[code] .. ',"code":"' .. code .. '"}'
    ngx.header["Content-Length"] = #body
    ngx.print(body)
    return ngx.exit(ngx.OK)
end

-- One command over a kept connection; the answer's strings and numbers, or nil.
local function call(...)
    local words = {...}
    local parts = {"*", #words, "\r\n"}
    for index = 1, #words do
        local word = tostring(words[index])
        parts[#parts + 1] = "$" .. #word .. "\r\n" .. word .. "\r\n"
    end
    local socket = ngx.socket.tcp()
    socket:settimeout(250)
    if not socket:connect("127.0.0.1", redis_port) or not socket:send(parts) then return nil end
    local line = socket:receive()
    if not line then return nil end
    if line:byte(1) ~= 42 then -- not an array: an error
        socket:setkeepalive(60000, 256)
        return nil, line
    end
    local answer = {}
    for index = 1, tonumber(line:sub(2)) do
        local item = socket:receive()
        if not item then return nil end
        if item:byte(1) == 36 then -- a string
            answer[index] = socket:receive(tonumber(item:sub(2)))
            socket:receive(2)
        else
            answer[index] = item:sub(2)
        end
    end
    socket:setkeepalive(60000, 256)
    return answer
end

-- The token, from the one place it may stand in, and the query without it.
local function take_token()
    local args, token = ngx.var.args, nil
    if args then
        local found = ngx.re.match(args, [[(?:^|&)token=([^&]*)]], "jo")
        if found then
            token = found[1]
            local from, to = args:find(found[0], 1, true)
            local rest = args:sub(1, from - 1) .. args:sub(to + 1)
            if rest:byte(1) == 38 then rest = rest:sub(2) end
            if rest:find("token=", 1, true) then return nil, "token_conflict" end
            ngx.req.set_uri_args(rest)
        end
    end
    local header = ngx.var.http_x_api_key
    if header then
        if token then return nil, "token_conflict" end
        token = header
    end
    local bearer = ngx.var.http_authorization
    if bearer then
        local found = ngx.re.match(bearer, [[^Bearer (.+)$]], "ijo")
        if found then
            if token then return nil, "token_conflict" end
            token = found[1]
        end
    end
    if not token then return nil, "token_missing" end
    if not ngx.re.find(token, [[^[ps]k_[0-9a-f]{32}$]], "jo") then return nil, "token_invalid" end
    return token
end

-- The host of the page the request comes from: of Origin and Referer, which must agree.
local function page_host()
    local origin, referer = ngx.var.http_origin, ngx.var.http_referer
    local host
    if origin then
        local found = ngx.re.match(origin, [[^https?://([a-z0-9._-]+)(?::[0-9]+)?$]], "ijo")
        if not found then return nil end
        host = found[1]:lower()
    end
    if referer then
        local found = ngx.re.match(referer, [[^https?://([a-z0-9._-]+)(?::[0-9]+)?(?:[/?#]|$)]], "ijo")
        if not found then return nil end
        local other = found[1]:lower()
        if host and host ~= other then return nil end
        host = other
    end
    return host or ""
end

local gate = {}

function gate.access()
    local token, refusal = take_token()
    if not token then return deny(refusal) end
    local host = page_host()
    if not host then return deny("domain_denied") end
    local var = ngx.var
    local dataset = (var.workspace .. "/" .. var.dataset):upper()
    local operation = OPERATION[ngx.req.get_method()]
    if not operation then return ngx.exit(405) end
    local hex = digest(token)
    local month = ngx.today():sub(1, 7)
    local answer, problem = call("EVALSHA", SHA, 2, "gate:" .. hex, "used:" .. hex .. ":" .. month, host, dataset, operation, 1)
    if problem and problem:find("NOSCRIPT", 1, true) then
        answer = call("EVAL", SCRIPT, 2, "gate:" .. hex, "used:" .. hex .. ":" .. month, host, dataset, operation, 1)
    end
    if not answer then return deny("store_unavailable") end
    if answer[1] ~= "pass" then return deny(answer[1]) end
    var.gate_dataset = dataset
    var.gate_token_id = answer[2]
    var.gate_account = answer[3]
    var.gate_verdict = "passed"
    var.gate_cost = "1"
    ngx.ctx.used = answer[4]
    ngx.ctx.limit = answer[5]
end

function gate.headers()
    local header, ctx = ngx.header, ngx.ctx
    header["X-Request-Id"] = ngx.var.request_id
    if ctx.used then
        local remaining = string.format("%.0f", tonumber(ctx.limit) - tonumber(ctx.used))
        header["X-Credits-Used"] = ctx.used
        header["X-Credits-Remaining"] = remaining
        header["RateLimit-Policy"] = '"credits";q=' .. ctx.limit .. ';w=2592000'
        header["RateLimit"] = '"credits";r=' .. remaining
        local origin = ngx.var.http_origin
        if origin then
            header["Access-Control-Allow-Origin"] = origin
            header["Access-Control-Expose-Headers"] = "X-Credits-Used, X-Credits-Remaining, RateLimit, RateLimit-Policy, X-Request-Id"
        end
        header["Vary"] = "Origin"
    end
end

return gate
