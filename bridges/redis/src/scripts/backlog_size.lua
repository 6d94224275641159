-- How far the subscription is behind that is furthest. KEYS: the prefix, the streams.
local function furthest_behind()
    local behind, most = {}, 0
    for i = 2, #KEYS do
        if redis.call('EXISTS', KEYS[i]) == 1 then
            local length = redis.call('XLEN', KEYS[i])
            for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[i])) do
                local told = {}
                for j = 1, #group, 2 do told[group[j]] = group[j + 1] end
                -- Where the server does not know, because entries were removed, it may be all of them.
                behind[told.name] = (behind[told.name] or 0) + (told.lag or length) + told.pending
            end
        end
    end
    for _, unit in ipairs(redis.call('HKEYS', KEYS[1] .. ':subscriptions')) do
        -- With what was made again, and retries that wait.
        local again, later = redis.call('XLEN', KEYS[1] .. ':again:' .. unit), redis.call('ZCARD', KEYS[1] .. ':later:' .. unit)
        most = math.max(most, (behind[unit] or 0) + again + later)
    end
    return most
end
