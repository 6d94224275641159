-- Makes deliveries again whose retry is due, the earliest of each subscription first. KEYS: the stream. ARGV: how many at most; units. Returns how
-- many.
local stream, most, done = KEYS[1], tonumber(ARGV[1]), 0
local now = redis.call('TIME')
now = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
for i = 2, #ARGV do
    local later = stream .. ':later:' .. ARGV[i]
    for _, text in ipairs(redis.call('ZRANGEBYSCORE', later, '-inf', now, 'LIMIT', 0, most - done)) do
        local it = cjson.decode(text)
        redis.call('XADD', stream .. ':again:' .. ARGV[i], '*', 'event', it.event, 'id', it.id, 'requeues', it.requeues, 'attempts', it.attempts,
            'errors', it.errors)
        redis.call('ZREM', later, text)
        done = done + 1
    end
end
if done > 0 then ring(stream) end
return done
