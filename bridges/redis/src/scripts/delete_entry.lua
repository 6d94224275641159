-- Deletes an event: its entry, its redeliveries, its deferred retries and its status.
-- KEYS: the prefix, its stream.
-- ARGV: entry, event id.
-- Returns: how many entries were removed.
-- Touches: one entry, the highest deleted entry, the status of the event; of each consumer group the figures and a field in `:deleted`; of
-- each one with a redelivery or retry of the event, all its redeliveries and retries (bytes of their events).
local prefix, stream, entry = KEYS[1], KEYS[2], ARGV[1]
if redis.call('XDEL', stream, entry) == 0 then return 0 end
local deleted = stream .. ':deleted'
local last = redis.call('HGET', deleted, 'last')
if not last or is_after(entry, last) then redis.call('HSET', deleted, 'last', entry) end
for _, group in ipairs(groups_of(stream)) do
    redis.call('XACK', stream, group.name, entry)
    -- The subscription has not read it: the next check for losses must not count it.
    if is_after(entry, group['last-delivered-id']) then redis.call('HINCRBY', deleted, group.name, 1) end
end
local status = prefix .. ':status:' .. ARGV[2]
for _, name in ipairs(redis.call('HKEYS', status)) do
    local xgroup = string.match(name, '^again:(.*)')
    local again, later = prefix .. ':again:' .. (xgroup or ''), prefix .. ':later:' .. (xgroup or '')
    for _, text in ipairs(xgroup and redis.call('ZRANGE', later, 0, -1) or {}) do
        local retry = parse_retry(text)
        if retry and retry.id == ARGV[2] then redis.call('ZREM', later, text) end
    end
    for _, found in ipairs(xgroup and redis.call('XRANGE', again, '-', '+') or {}) do
        if field(found, 'id') == ARGV[2] then
            redis.call('XACK', again, xgroup, found[1])
            redis.call('XDEL', again, found[1])
        end
    end
end
redis.call('DEL', status)
return 1
