-- Makes a subscription known. KEYS: the prefix, the streams. ARGV: unit, what is known of it as JSON, whether its pattern may change (1), and the
-- entry after which it begins, of each stream or the same of all. Returns 1 and what is known of it now; or 0 and the pattern that it is known with, if that is another one and
-- may not change.
local prefix, unit = KEYS[1], ARGV[1]
local info, known = cjson.decode(ARGV[2]), redis.call('HGET', prefix .. ':subscriptions', unit)
local from_start = false
local function start_of(number) return from_start and '0' or ARGV[3 + number] or ARGV[4] end
local function last_entries()
    local entries = {}
    for i = 2, #KEYS do
        local last = redis.call('XREVRANGE', KEYS[i], '+', '-', 'COUNT', 1)[1]
        entries[i - 1] = last and last[1] or '0-0'
    end
    return entries
end
if known then
    known = cjson.decode(known)
    if known.pattern ~= info.pattern and ARGV[3] ~= '1' then return { 0, known.pattern } end
    if known.pattern ~= info.pattern then
        -- What is stored already was meant for the pattern of that time.
        known.patterns = known.patterns or {}
        table.insert(known.patterns, { until_entries = last_entries(), pattern = known.pattern })
    end
    known.pattern, known.owner = info.pattern, info.owner
    info, from_start = known, true
else
    -- Only what is stored from now on depends on it.
    info.after = last_entries()
    info.patterns = nil
end
local now = redis.call('TIME')
redis.call('HSET', prefix .. ':used', unit, now[1] * 1000 + math.floor(now[2] / 1000))
local function make(key, from)
    local made = redis.pcall('XGROUP', 'CREATE', key, unit, from, 'MKSTREAM')
    local failed = made.err and not string.find(made.err, 'BUSYGROUP', 1, true) and made.err
    return not made.err, failed
end
local _, failed = make(prefix .. ':again:' .. unit, '0')
if failed then return redis.error_reply(failed) end
for i = 2, #KEYS do
    local stream, start = KEYS[i], start_of(i - 1)
    local made, failed = make(stream, start)
    if failed then return redis.error_reply(failed) end
    if made then
        local told, answer = {}, redis.call('XINFO', 'STREAM', stream)
        for j = 1, #answer, 2 do told[answer[j]] = answer[j + 1] end
        local added, seen = told['entries-added'], redis.call('HGET', stream .. ':seen', unit)
        -- It is another stream than the one that was looked at.
        if seen and added < tonumber(string.match(seen, '%S+ %S+ %S+ %S+ (%S+)')) then redis.call('DEL', stream .. ':life') end
        if not seen and (start == '$' or start == '0') then
            -- From here on nothing may be lost, also before the first look at it.
            local position, last = added, told['last-generated-id']
            if start == '0' then position, last = added - told.length, '0-0' end
            local reads = redis.call('HGET', stream .. ':ended', unit) or '0'
            redis.call('HSET', stream .. ':seen', unit, string.format('- %.0f %s %s %.0f 0 %s %.0f', position, reads, last, added,
                told['max-deleted-entry-id'], added - told.length))
        end
    end
end
info = cjson.encode(info)
redis.call('HSET', prefix .. ':subscriptions', unit, info)
return { 1, info }
