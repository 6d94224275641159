-- Part of a script: the backlog of the subscription that has the largest one.
local function backlog_size(prefix)
    local backlog, most = {}, 0
    for i = 2, #KEYS do
        local length = redis.call('XLEN', KEYS[i])
        for _, group in ipairs(groups_of(KEYS[i])) do
            -- After removals the server may not know the lag: then the whole length counts.
            backlog[group.name] = (backlog[group.name] or 0) + (group.lag or length) + group.pending
        end
    end
    for _, xgroup in ipairs(redis.call('HKEYS', prefix .. ':subscriptions')) do
        local redeliveries = redis.call('XLEN', prefix .. ':again:' .. xgroup)
        local deferred = redis.call('ZCARD', prefix .. ':later:' .. xgroup)
        most = math.max(most, (backlog[xgroup] or 0) + redeliveries + deferred)
    end
    return most
end
