-- Makes a subscription known, with a consumer group on each stream.
-- KEYS: the prefix, the streams.
-- ARGV: consumer group, the subscription's record as JSON, 1 if its pattern may change, and the entry after which it begins, of each stream
-- or one for all.
-- Returns: 1 and the record as it is now; or 0 and the known pattern, if that is another one and may not change.
-- Touches: the record, the time of its use, a consumer group on the redelivery stream; of each stream a consumer group, the last entry, the
-- figures, the subscription's fields in `:checked` and `:deleted`, the string `:life`, and five keys of earlier versions, which it deletes;
-- of a group from an earlier version its released entries by id.
local prefix, xgroup = KEYS[1], ARGV[1]
local record, known = cjson.decode(ARGV[2]), redis.call('HGET', prefix .. ':subscriptions', xgroup)
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
    if known.pattern ~= record.pattern and ARGV[3] ~= '1' then return { 0, known.pattern } end
    if known.pattern ~= record.pattern then
        -- Entries that are stored already are matched with the earlier pattern.
        known.patterns = known.patterns or {}
        table.insert(known.patterns, { until_entries = last_entries(), pattern = known.pattern })
    end
    known.pattern, known.owner = record.pattern, record.owner
    record = known
else
    -- The status of an event depends only on subscriptions that were known when it was stored.
    record.after = last_entries()
    record.patterns = nil
end
redis.call('HSET', prefix .. ':used', xgroup, now_millis())
-- Returns whether the consumer group is new, or an error.
local function create(key, from, read)
    local made = redis.pcall('XGROUP', 'CREATE', key, xgroup, from, 'MKSTREAM', unpack(read and { 'ENTRIESREAD', read } or {}))
    if not made.err then return true end
    if not string.find(made.err, 'BUSYGROUP', 1, true) then return false, made.err end
    -- Earlier versions called the consumer of released deliveries `~`.
    local old = redis.call('XPENDING', key, xgroup, '-', '+', 1000, '~')
    while #old > 0 do
        local ids = {}
        for _, found in ipairs(old) do ids[#ids + 1] = found[1] end
        ids[#ids + 1] = 'JUSTID'
        redis.call('XCLAIM', key, xgroup, 'released', 0, unpack(ids))
        old = redis.call('XPENDING', key, xgroup, '-', '+', 1000, '~')
    end
    return false
end
local _, failed = create(prefix .. ':again:' .. xgroup, '0')
if failed then return redis.error_reply(failed) end
for i = 2, #KEYS do
    local stream, start, info = KEYS[i], known and '0' or ARGV[2 + i] or ARGV[4], { ['entries-added'] = 0, length = 0 }
    if redis.call('EXISTS', stream) == 1 then info = fields(redis.call('XINFO', 'STREAM', stream)) end
    local added = info['entries-added']
    -- The server learns later how many entries are read if it can't derive that here.
    local made, failed = create(stream, start, start == '$' and added or start == '0' and added - info.length)
    if failed then return redis.error_reply(failed) end
    if made then
        local checked, life = redis.call('HGET', stream .. ':checked', xgroup), stream .. ':life'
        -- Fewer entries were ever added than at the last check: this is another stream.
        if checked and added < tonumber(string.match(checked, '%S+ (%d+)')) then redis.call('DEL', life) end
        redis.call('SET', life, table.concat(redis.call('TIME'), '-'), 'NX')
        -- From here on a loss counts, also before the first check.
        redis.call('HSETNX', stream .. ':checked', xgroup,
            string.format('%s %.0f 0 %s %s', redis.call('GET', life), added, info['max-deleted-entry-id'] or '0-0', run_id() or '-'))
        redis.call('HDEL', stream .. ':deleted', xgroup)
    end
    -- Figures of earlier versions.
    redis.call('DEL', stream .. ':seen', stream .. ':read', stream .. ':ended', stream .. ':given', stream .. ':taken')
end
record = cjson.encode(record)
redis.call('HSET', prefix .. ':subscriptions', xgroup, record)
return { 1, record }
