-- Part of a script: the holder of a delivery, which is the consumer that XPENDING names; nothing if the delivery is settled.
local function holder_of(key, xgroup, entry)
    local found = redis.call('XPENDING', key, xgroup, entry, entry, 1)[1]
    return found and found[2]
end
