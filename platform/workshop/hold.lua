-- Holds requests to some path prefixes for a moment: queued, not refused.
--
-- The map says of which prefixes, and until when, in milliseconds since 1970. An entry that is removed lets them go at
-- once; one that was left behind by somebody who died lets them go at its time. Where they go then, the routes decide.

local holds = Map.new(os.getenv("HOLDS"), Map._beg)
local POLL = 10 -- milliseconds between two looks

local function is_held(txn)
    local ends = tonumber(holds:lookup(txn.sf:path() .. "/") or "")
    return ends and tonumber(txn.f:date(0, "ms")) < ends -- the clock of those who write the map, not HAProxy's own
end

core.register_action("hold", { "http-req" }, function(txn)
    while is_held(txn) do
        core.msleep(POLL)
    end
end)
