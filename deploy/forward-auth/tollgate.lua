-- Asks Tollgate about each request (forward-auth), for HAProxy. Loaded by haproxy.cfg here, which says where it is called.
--
--   tollgate_check   asks; ends the transaction with the gate's own answer where the request may not pass
--   tollgate_mask    takes tokens out of the headers that go on to the service
--   tollgate_settle  tells the gate the response's status, so that what failed is given back
--   tollgate_tell    gives the client the gate's headers

local authz = os.getenv("TOLLGATE_AUTHZ") or "127.0.0.1:8082"
local settle = true
local timeout = 2000 -- milliseconds

-- Headers that belong to one connection, or that the question says itself.
local own = {
    ["connection"] = true, ["content-length"] = true, ["transfer-encoding"] = true, ["upgrade"] = true, ["te"] = true,
    ["keep-alive"] = true, ["proxy-connection"] = true, ["expect"] = true, ["trailer"] = true,
    ["x-original-uri"] = true, ["x-original-method"] = true, ["x-forwarded-uri"] = true, ["x-forwarded-method"] = true,
    ["x-forwarded-host"] = true, ["x-original-content-length"] = true, ["x-original-transfer-encoding"] = true,
}

-- Headers of the gate's answer that are the client's.
local told = {
    "access-control-allow-origin", "access-control-expose-headers", "x-request-id", "x-credits-used",
    "x-credits-remaining", "ratelimit-policy", "ratelimit", "iexcloud-credits-used", "iexcloud-messages-used",
    "iexcloud-premium-credits-used", "iexcloud-premium-messages-used",
}

local function values(headers, name)
    local list = {}
    for _, value in pairs(headers[name] or {}) do list[#list + 1] = value end
    return list
end

-- HAProxy counts a header's values from 0, its own client wants them from 1.
local function question(txn)
    local headers = {}
    local sent = txn.http:req_get_headers()
    for name in pairs(sent) do
        if not own[name] then headers[name] = values(sent, name) end
    end
    local function first(name) return (values(sent, name))[1] end
    headers["x-original-uri"] = { txn.f:pathq() }
    headers["x-original-method"] = { txn.f:method() }
    local forwarded = headers["x-forwarded-for"] or {}
    forwarded[#forwarded + 1] = txn.f:src()
    headers["x-forwarded-for"] = forwarded
    if first("content-length") then headers["x-original-content-length"] = { first("content-length") } end
    if first("transfer-encoding") then headers["x-original-transfer-encoding"] = { first("transfer-encoding") } end
    return headers
end

local function reply(txn, status, headers, body)
    local answer = txn:reply({ status = status })
    for name, list in pairs(headers or {}) do
        if not own[name] then
            for _, value in pairs(list) do answer:add_header(name, value) end
        end
    end
    answer:set_body(body or "")
    txn:done(answer)
end

core.register_action("tollgate_check", { "http-req" }, function(txn)
    txn:set_var("txn.tollgate_passed", false)
    local options = settle and "?refuse=403&settle=later" or "?refuse=403"
    local answer = core.httpclient():get {
        url = "http://" .. authz .. "/authz" .. options, headers = question(txn), timeout = timeout,
    }
    if not answer or answer.status == 0 then
        reply(txn, 503, { ["retry-after"] = { "1" } })
    end
    local headers = answer.headers or {}
    local function first(name) return (values(headers, name))[1] end
    if answer.status == 204 then
        txn:set_var("txn.tollgate_passed", true)
        txn:set_var("txn.tollgate_uri", first("x-tollgate-uri"))
        txn:set_var("txn.tollgate_token_id", first("x-tollgate-token-id"))
        txn:set_var("txn.tollgate_account", first("x-tollgate-account"))
        txn:set_var("txn.tollgate_request_id", first("x-request-id"))
        txn:set_var("txn.tollgate_claim", first("x-tollgate-claim") or "")
        txn:set_var("txn.tollgate_method", txn.f:method())
        local tell = {}
        for _, name in ipairs(told) do tell[name] = first(name) end
        txn:set_priv(tell)
        return
    end
    -- Told as 403 with the true answer packed, so that only 204 is ever leave to pass.
    local packed = first("x-tollgate-refusal")
    if not packed then reply(txn, answer.status, headers, answer.body) end
    local text = packed:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
    local head, body = text:match("^(.-)\n\n(.*)$")
    local status = head:match("^%d+")
    local lines = {}
    for name, value in head:gmatch("\n([^:\n]+): ([^\n]*)") do
        lines[name] = lines[name] or {}
        table.insert(lines[name], value)
    end
    reply(txn, tonumber(status), lines, body)
end, 0)

core.register_action("tollgate_mask", { "http-req" }, function(txn)
    local digits = string.rep("%x", 32)
    for name, list in pairs(txn.http:req_get_headers()) do
        for _, value in pairs(list) do
            -- Written plainly, or in percent-encoding.
            local plain = value:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
            plain = plain:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
            if plain:find("[ps]k_" .. digits) then
                txn.http:req_del_header(name)
                break
            end
        end
    end
end, 0)

core.register_action("tollgate_settle", { "http-res" }, function(txn)
    local claim = txn:get_var("txn.tollgate_claim")
    if claim and claim ~= "" then
        local query = "?claim=" .. claim .. "&status=" .. tostring(txn.f:status())
        local length = txn.f:res_hdr("content-length")
        if txn:get_var("txn.tollgate_method") == "HEAD" then length = "0" end
        if length then query = query .. "&bytes=" .. length end
        core.httpclient():post { url = "http://" .. authz .. "/settle" .. query, headers = {}, timeout = timeout }
        txn:set_var("txn.tollgate_claim", "")
    end
end, 0)

core.register_action("tollgate_tell", { "http-res" }, function(txn)
    for name, value in pairs(txn:get_priv() or {}) do txn.http:res_set_header(name, value) end
    txn.http:res_add_header("vary", "Origin")
end, 0)
