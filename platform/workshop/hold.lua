-- Holds requests to some path prefixes for a moment: queued, not refused.
--
-- The map says of which prefixes, and until when, in seconds since 1970. An entry that is removed lets them go at once;
-- one that was left behind by somebody who died lets them go at its time. Where they go then, the routes decide then.

local holds = Map.new(os.getenv("HOLDS"), Map._beg)
local POLL = 10 -- milliseconds between two looks

local function is_held(path)
    local ends = tonumber(holds:lookup(path) or "")
    local now = core.now()
    return ends and now.sec + now.usec / 1e6 < ends
end

core.register_action("hold", { "http-req" }, function(txn)
    local path = txn.f:path() .. "/"
    while is_held(path) do
        core.msleep(POLL)
    end
end)
