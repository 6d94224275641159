-- Removes consumers that have done nothing for so long and hold nothing: with one that does, what it holds would go. KEYS: the prefix, the streams.
-- ARGV: the time in milliseconds. Returns how many.
local count = 0
local function reap(key, unit)
    local consumers = redis.pcall('XINFO', 'CONSUMERS', key, unit)
    if consumers.err then return end
    for _, it in ipairs(consumers) do
        local told = {}
        for i = 1, #it, 2 do told[it[i]] = it[i + 1] end
        if told.name ~= '~' and told.pending == 0 and told.idle > tonumber(ARGV[1]) then
            redis.call('XGROUP', 'DELCONSUMER', key, unit, told.name)
            count = count + 1
        end
    end
end
for _, unit in ipairs(redis.call('HKEYS', KEYS[1] .. ':subscriptions')) do
    for i = 2, #KEYS do reap(KEYS[i], unit) end
    reap(KEYS[1] .. ':again:' .. unit, unit)
end
return count
