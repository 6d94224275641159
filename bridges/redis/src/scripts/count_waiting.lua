-- How many deliveries wait, read or not. KEYS: the prefix, the streams. Returns a number that is 0 only if none does.
local count = 0
local function waits(key)
    if redis.call('EXISTS', key) == 0 then return end
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
        local told = {}
        for i = 1, #group, 2 do told[group[i]] = group[i + 1] end
        if redis.call('HEXISTS', KEYS[1] .. ':subscriptions', told.name) == 1 then
            count = count + told.pending + #redis.call('XRANGE', key, '(' .. told['last-delivered-id'], '+', 'COUNT', 1000)
        end
    end
end
for i = 2, #KEYS do waits(KEYS[i]) end
for _, unit in ipairs(redis.call('HKEYS', KEYS[1] .. ':subscriptions')) do
    waits(KEYS[1] .. ':again:' .. unit)
    count = count + redis.call('ZCARD', KEYS[1] .. ':later:' .. unit)
end
return count
