-- Removes subscriptions with their backlog, redeliveries, retries and dead letters.
-- KEYS: the prefix, the streams.
-- ARGV: consumer groups.
-- Returns: how many of them were known.
-- Touches: everything that is stored of the subscriptions, with the bytes of their redeliveries, retries and dead letters; the statuses of
-- the events of these redeliveries and retries.
local prefix, count = KEYS[1], 0
for _, xgroup in ipairs(ARGV) do
    local known = redis.call('HGET', prefix .. ':subscriptions', xgroup)
    if known then
        local group = cjson.decode(known).group
        for _, number in ipairs(redis.call('HVALS', prefix .. ':letters:at:' .. xgroup)) do take_dead_letter(prefix, group, number) end
    end
    count = count + redis.call('HDEL', prefix .. ':subscriptions', xgroup)
    redis.call('HDEL', prefix .. ':used', xgroup)
    for i = 2, #KEYS do
        redis.pcall('XGROUP', 'DESTROY', KEYS[i], xgroup)
        redis.call('HDEL', KEYS[i] .. ':checked', xgroup)
        redis.call('HDEL', KEYS[i] .. ':deleted', xgroup)
    end
    local again = prefix .. ':again:' .. xgroup
    for _, found in ipairs(redis.call('XRANGE', again, '-', '+')) do
        local id = field(found, 'id')
        if id then redis.call('HDEL', prefix .. ':status:' .. id, 'again:' .. xgroup) end
    end
    local later = prefix .. ':later:' .. xgroup
    for _, text in ipairs(redis.call('ZRANGE', later, 0, -1)) do
        local retry = parse_retry(text)
        if retry then redis.call('HDEL', prefix .. ':status:' .. retry.id, 'again:' .. xgroup) end
    end
    redis.call('DEL', again, later, prefix .. ':marks:' .. xgroup, prefix .. ':owners:' .. xgroup, prefix .. ':members:' .. xgroup)
end
return count
