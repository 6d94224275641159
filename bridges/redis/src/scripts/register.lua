-- Makes a subscription known. KEYS: the stream. ARGV: unit, what is known of it as JSON, whether its pattern may change (1), and the entry
-- after which it begins. Returns the pattern that it is known with, if that is another one and may not change.
local stream, unit = KEYS[1], ARGV[1]
local info, known = cjson.decode(ARGV[2]), redis.call('HGET', stream .. ':subscriptions', unit)
local start = ARGV[4]
if known then
    known = cjson.decode(known)
    if known.pattern ~= info.pattern and ARGV[3] ~= '1' then return known.pattern end
    if known.pattern ~= info.pattern then
        -- What is stored already was meant for the pattern of that time.
        local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
        known.patterns = known.patterns or {}
        table.insert(known.patterns, { until_entry = last and last[1] or '0-0', pattern = known.pattern })
    end
    known.pattern, known.owner = info.pattern, info.owner
    info, start = known, '0'
else
    -- Only what is stored from now on depends on it.
    local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    info.after = last and last[1] or '0-0'
end
redis.call('HSET', stream .. ':subscriptions', unit, cjson.encode(info))
local now = redis.call('TIME')
redis.call('HSET', stream .. ':used', unit, now[1] * 1000 + math.floor(now[2] / 1000))
for key, from in pairs({ [stream] = start, [stream .. ':again:' .. unit] = '0' }) do
    local made = redis.pcall('XGROUP', 'CREATE', key, unit, from, 'MKSTREAM')
    if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return redis.error_reply(made.err) end
    if key == stream and not made.err then
        local told, answer = {}, redis.call('XINFO', 'STREAM', stream)
        for i = 1, #answer, 2 do told[answer[i]] = answer[i + 1] end
        local added, seen = told['entries-added'], redis.call('HGET', stream .. ':seen', unit)
        -- It is another stream than the one that was looked at.
        if seen and added < tonumber(string.match(seen, '%S+ %S+ %S+ %S+ (%S+)')) then redis.call('DEL', stream .. ':life') end
        if not seen and (from == '$' or from == '0') then
            -- From here on nothing may be lost, also before the first look at it.
            local position, last = added, told['last-generated-id']
            if from == '0' then position, last = added - told.length, '0-0' end
            local reads, taken = redis.call('HGET', stream .. ':read', unit), redis.call('HGET', stream .. ':taken', unit)
            redis.call('HSET', stream .. ':seen', unit, string.format('- %.0f %s %s %.0f 0 0 %s %s %.0f', position, reads or '0', last,
                added, taken or '0', told['max-deleted-entry-id'], added - told.length))
        end
    end
end
return false
