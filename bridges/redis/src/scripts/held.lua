-- Whether a member holds a delivery: its consumer, or nothing if it is settled.
local function holder(key, unit, entry)
    local found = redis.call('XPENDING', key, unit, entry, entry, 1)[1]
    return found and found[2]
end
local function ring(stream) redis.call('XADD', stream .. ':bell', 'MAXLEN', 1, '*', 'x', '') end
