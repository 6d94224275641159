-- Makes deliveries again whose retry is due, the earliest of each subscription first: so many at most, of the units that are arguments from one on.
-- Returns how many.
local function bring_back(stream, most, first)
    local done, now = 0, redis.call('TIME')
    now = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
    for i = first, #ARGV do
        local later = stream .. ':later:' .. ARGV[i]
        for _, text in ipairs(redis.call('ZRANGEBYSCORE', later, '-inf', now, 'LIMIT', 0, most - done)) do
            -- A full memory refuses what adds, unless something was removed before: this goes through, and takes no more room.
            redis.call('ZREM', later, text)
            local it = retry_of(text)
            if it then
                redis.call('XADD', stream .. ':again:' .. ARGV[i], '*', 'event', it.event, 'id', it.id, 'requeues', it.requeues,
                    'attempts', it.attempts, 'errors', it.errors)
            end
            done = done + 1
        end
    end
    if done > 0 then ring(stream) end
    return done
end
