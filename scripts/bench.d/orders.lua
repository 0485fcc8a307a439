-- POSTs orders, each with an id and a key of its own, about 500 bytes long.
dofile(os.getenv("BENCH_LUA_DIR") .. "/done.lua")

local headers = {
    ["Host"] = "box",
    ["Authorization"] = "Bearer " .. os.getenv("TOKEN"),
    ["Content-Type"] = "application/json",
}
local prefix, count = os.getenv("ORDER_PREFIX"), 0
local lines = {}
for n = 1, 4 do
    lines[n] = string.format('{"product":"product-%d","name":"A product with a usual name","quantity":%d,"price":"%d.50"}', n, n, n)
end
local body = '{"order_id":"%s","placed_at":"2026-01-01T12:00:00Z","lines":[' .. table.concat(lines, ",") .. "]}"

function request()
    count = count + 1
    local id = prefix .. "-" .. count
    headers["Idempotency-Key"] = id
    return wrk.format("POST", "/v1/orders", headers, string.format(body, id))
end
