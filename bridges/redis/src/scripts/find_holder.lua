-- Whether a member holds a delivery: its consumer, or nothing if it is settled.
local function holder(key, unit, entry)
    local found = redis.call('XPENDING', key, unit, entry, entry, 1)[1]
    return found and found[2]
end
local function ring(stream) redis.call('XADD', stream .. ':bell', 'MAXLEN', 1, '*', 'x', '') end
-- Ends a delivery: its entry is acknowledged, and removed if it was made again.
local function take_out(stream, key, unit, entry)
    local ended = redis.call('XACK', key, unit, entry)
    if key == stream .. ':again:' .. unit then
        redis.call('XDEL', key, entry)
    elseif ended > 0 then
        redis.call('HINCRBY', key .. ':ended', unit, ended)
    end
    redis.call('HDEL', stream .. ':marks:' .. unit, key .. ' ' .. entry)
end
