-- Part of a script: ends a delivery. Acknowledges its entry, removes the entry if it was a redelivery, and removes its mark.
local function end_delivery(prefix, key, xgroup, entry)
    redis.call('XACK', key, xgroup, entry)
    if key == prefix .. ':again:' .. xgroup then redis.call('XDEL', key, entry) end
    redis.call('HDEL', prefix .. ':marks:' .. xgroup, key .. ' ' .. entry)
end
