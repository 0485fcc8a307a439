-- GETs the paths of PATHS_FILE in turn. They were drawn beforehand, so that the client has no work but to send them.
dofile(os.getenv("BENCH_LUA_DIR") .. "/done.lua")

local requests, next_one = {}, 0

function init()
    local headers = { ["Host"] = "box", ["Authorization"] = "Bearer " .. os.getenv("TOKEN") }
    for path in io.lines(os.getenv("PATHS_FILE")) do
        requests[#requests + 1] = wrk.format("GET", path, headers)
    end
end

function request()
    next_one = next_one % #requests + 1
    return requests[next_one]
end
