-- Part of a script: the holder of a delivery, which is the consumer that XPENDING names; nothing if the delivery is settled.
local function holder_of(key, xgroup, entry)
    local found = redis.call('XPENDING', key, xgroup, entry, entry, 1)[1]
    return found and found[2]
end
-- Notifies all members: wakes their readers. The notify stream has the key `bell`.
local function notify(prefix) redis.call('XADD', prefix .. ':bell', 'MAXLEN', 1, '*', 'x', '') end
-- Ends a delivery: acknowledges its entry, removes the entry if it was a redelivery, and removes its mark.
local function end_delivery(prefix, key, xgroup, entry)
    redis.call('XACK', key, xgroup, entry)
    if key == prefix .. ':again:' .. xgroup then redis.call('XDEL', key, entry) end
    redis.call('HDEL', prefix .. ':marks:' .. xgroup, key .. ' ' .. entry)
end
-- Raises the number of retries in the status of an event.
local function raise_retries(status, retries)
    if tonumber(retries) > tonumber(redis.call('HGET', status, 'retries') or '0') then redis.call('HSET', status, 'retries', retries) end
end
