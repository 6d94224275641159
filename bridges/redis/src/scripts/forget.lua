-- Removes subscriptions with everything that waits for them. KEYS: the stream. ARGV: units. Returns how many were known.
local stream, count = KEYS[1], 0
for _, unit in ipairs(ARGV) do
    local known = redis.call('HGET', stream .. ':subscriptions', unit)
    if known then
        local group = cjson.decode(known).group
        for _, number in ipairs(redis.call('HVALS', stream .. ':letters:at:' .. unit)) do take(stream, group, number) end
    end
    count = count + redis.call('HDEL', stream .. ':subscriptions', unit)
    for _, name in ipairs({ ':used', ':seen', ':read', ':taken' }) do redis.call('HDEL', stream .. name, unit) end
    redis.pcall('XGROUP', 'DESTROY', stream, unit)
    for _, it in ipairs(redis.call('XRANGE', stream .. ':again:' .. unit, '-', '+')) do
        for i = 1, #it[2], 2 do
            if it[2][i] == 'id' then redis.call('HDEL', stream .. ':status:' .. it[2][i + 1], 'again:' .. unit) end
        end
    end
    redis.call('DEL', stream .. ':again:' .. unit, stream .. ':marks:' .. unit)
end
return count
