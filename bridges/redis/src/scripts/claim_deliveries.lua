-- Claims deliveries of a subscription for a member.
-- KEYS: the prefix, the streams to claim from.
-- ARGV: consumer group, member, how many, the lease in milliseconds, 1 to take over expired leases of others, 1 to take deliveries
-- that the member held before it began or owned the stream (2: those of an earlier call whose reply was lost), 1 to read new entries, the
-- boot id that must own the streams (or nothing); the numbers of the streams; and of each delivery in hand, if the sixth argument is not
-- 0, the number of its stream (0: the redelivery stream) and its entry.
-- Returns: of each delivery the number of its stream, entry, event, 1 if it is a suspect, crashes, and of a redelivery its attempts and
-- errors; 1 if more may wait that goes before new entries, 2 if the member held more than it could take; the last entries of the notify
-- stream and of each stream.
-- Touches: the subscription's record, owners and marks; of each stream and of the redelivery stream the entries below; of each stream the
-- last entry and the count of lost entries; the last entry of the notify stream. Returns the bytes of as many events as asked.
--   By id: at most 100,000 pending entries of the member, if the sixth argument is not 0. Of a stream that the member owns all pending
--   entries, of any other stream all released ones, until as many are claimed as asked; no number bounds these. Of expired leases at most
--   1,000 more than asked.
--   With their events: the entries that it claims, of which those that do not match have no bound, and eight reads of at most 1,000 entries.
-- From a stream that the member owns, the script takes over everything that others hold, in its order.
local prefix, xgroup, me, room, lease, owner = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[8]
local known, marks = redis.call('HGET', prefix .. ':subscriptions', xgroup), prefix .. ':marks:' .. xgroup
if not known then return redis.error_reply('NOGROUP the subscription is not known') end
local record, taken, in_hand = cjson.decode(known), {}, {}
for i = 8 + #KEYS, #ARGV, 2 do in_hand[ARGV[i] .. ' ' .. ARGV[i + 1]] = true end
-- Any member may claim redeliveries, also where each stream has an owner.
local streams = { { number = 0, key = prefix .. ':again:' .. xgroup, is_own = false } }
local now = now_millis()
for i = 2, #KEYS do
    local number, may_claim = tonumber(ARGV[7 + i]), true
    if owner ~= '' then
        local boot, ends = string.match(redis.call('HGET', prefix .. ':owners:' .. xgroup, number) or '', '(%S+) (%d+)')
        may_claim = boot == owner and tonumber(ends) > now
    end
    if may_claim then streams[#streams + 1] = { number = number, key = KEYS[i], is_own = owner ~= '' } end
end
local non_matching, has_marks = nil, redis.call('EXISTS', marks) == 1
local function take(it, entry, is_suspect)
    if it.number > 0 and not matches(pattern_at(record, it.number, entry[1]), field(entry, 'type') or '') then
        non_matching[#non_matching + 1] = entry[1]
        return
    end
    -- A suspect that was released is still one.
    local place = it.key .. ' ' .. entry[1]
    local crashes, mark = 0, has_marks and redis.call('HGET', marks, place)
    if mark then
        crashes = tonumber(string.match(mark, '%d+')) + (string.sub(mark, -1) == '!' and 1 or 0)
    end
    if mark or is_suspect then
        is_suspect, has_marks = true, true
        redis.call('HSET', marks, place, crashes)
    end
    -- Only a redelivery may have earlier attempts.
    local attempts = it.number == 0 and field(entry, 'attempts') or '0'
    local errors = it.number == 0 and field(entry, 'errors') or ''
    taken[#taken + 1] = { it.number, entry[1], field(entry, 'event') or '', is_suspect and 1 or 0, crashes, attempts, errors }
    room = room - 1
end
local function ack_non_matching(it)
    if #non_matching > 0 then redis.call('XACK', it.key, xgroup, unpack(non_matching)) end
end
local function claim(it, ids, is_suspect)
    if #ids == 0 then return end
    local found = redis.call('XCLAIM', it.key, xgroup, me, 0, unpack(ids))
    non_matching = {}
    for _, entry in ipairs(found) do take(it, entry, is_suspect) end
    ack_non_matching(it)
    -- Another client has removed the others from the stream: XCLAIM has ended their deliveries.
    if it.number > 0 and #found < #ids then redis.call('HINCRBY', it.key .. ':lost', 'entries', #ids - #found) end
end
local function pending(it, consumer)
    local ids = {}
    if room > 0 then
        for _, found in ipairs(redis.call('XPENDING', it.key, xgroup, '-', '+', room, consumer)) do ids[#ids + 1] = found[1] end
    end
    return ids
end
-- From a stream that the member owns: everything that other consumers hold, in the order of the stream.
local function take_all(it)
    local from = '-'
    while room > 0 do
        local found = redis.call('XPENDING', it.key, xgroup, from, '+', 1000)
        for _, one in ipairs(found) do
            if room > 0 and one[2] ~= me then claim(it, { one[1] }, one[2] ~= 'released') end
        end
        if #found < 1000 then return end
        from = '(' .. found[1000][1]
    end
end
local held_more = false
for _, it in ipairs(streams) do
    -- First: after a claim, the entries of that claim would look like earlier ones.
    if ARGV[6] ~= '0' then
        local ids = {}
        for _, mine in ipairs(redis.call('XPENDING', it.key, xgroup, '-', '+', 100000, me)) do
            if not in_hand[it.number .. ' ' .. mine[1]] then
                if #ids < room then ids[#ids + 1] = mine[1] else held_more = true end
            end
        end
        claim(it, ids, ARGV[6] == '1')
        -- The other deliveries that the member held go before everything else.
        if held_more then room = 0 end
    end
    if it.is_own then
        if ARGV[5] == '1' then take_all(it) end
    else
        -- Released deliveries go before new entries, also if some of their entries were removed.
        local released = pending(it, 'released')
        while #released > 0 do
            claim(it, released, false)
            released = pending(it, 'released')
        end
    end
    if ARGV[5] == '1' and room > 0 and not it.is_own then
        local ids = {}
        for _, expired in ipairs(redis.call('XPENDING', it.key, xgroup, 'IDLE', lease, '-', '+', room + 1000)) do
            if expired[2] ~= me and expired[2] ~= 'released' and #ids < room then ids[#ids + 1] = expired[1] end
        end
        claim(it, ids, true)
    end
end
local more = held_more and 2 or room <= 0 and 1 or 0
for turn, it in ipairs(streams) do
    -- Entries that do not match are read as well, so the number of reads is bounded. Each stream has its share of the room.
    for _ = 1, 8 do
        local share = math.ceil(room / (#streams - turn + 1))
        if share <= 0 or ARGV[7] == '0' then break end
        local count = math.min(math.max(share, 100), 1000)
        local found = redis.call('XREADGROUP', 'GROUP', xgroup, me, 'COUNT', count, 'STREAMS', it.key, '>')
        if not found then break end
        local surplus, rest = {}, room - share
        non_matching = {}
        for _, entry in ipairs(found[1][2]) do
            if room > rest then take(it, entry, false) else surplus[#surplus + 1] = entry[1] end
        end
        ack_non_matching(it)
        if #surplus > 0 then
            surplus[#surplus + 1], more = 'JUSTID', math.max(more, 1)
            redis.call('XCLAIM', it.key, xgroup, 'released', 0, unpack(surplus))
        end
        if #found[1][2] < count or #surplus > 0 then break end
    end
end
local function last(key)
    local entry = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
    return entry and entry[1] or '0-0'
end
local lasts = { last(prefix .. ':bell') }
for i = 2, #KEYS do lasts[i] = last(KEYS[i]) end
return { taken, more, lasts }
