-- Removes subscriptions with everything that waits for them. KEYS: the prefix, the streams. ARGV: units. Returns how many were known.
local prefix, count = KEYS[1], 0
for _, unit in ipairs(ARGV) do
    local known = redis.call('HGET', prefix .. ':subscriptions', unit)
    if known then
        local group = cjson.decode(known).group
        for _, number in ipairs(redis.call('HVALS', prefix .. ':letters:at:' .. unit)) do take(prefix, group, number) end
    end
    count = count + redis.call('HDEL', prefix .. ':subscriptions', unit)
    redis.call('HDEL', prefix .. ':used', unit)
    for i = 2, #KEYS do
        redis.pcall('XGROUP', 'DESTROY', KEYS[i], unit)
        for _, name in ipairs({ ':seen', ':read', ':ended', ':given', ':taken' }) do redis.call('HDEL', KEYS[i] .. name, unit) end
    end
    local again = prefix .. ':again:' .. unit
    for _, it in ipairs(redis.call('XRANGE', again, '-', '+')) do
        for i = 1, #it[2], 2 do
            if it[2][i] == 'id' then redis.call('HDEL', prefix .. ':status:' .. it[2][i + 1], 'again:' .. unit) end
        end
    end
    local later = prefix .. ':later:' .. unit
    for _, text in ipairs(redis.call('ZRANGE', later, 0, -1)) do
        local it = retry_of(text)
        if it then redis.call('HDEL', prefix .. ':status:' .. it.id, 'again:' .. unit) end
    end
    redis.call('DEL', again, later, prefix .. ':marks:' .. unit, prefix .. ':owners:' .. unit, prefix .. ':members:' .. unit)
end
return count
