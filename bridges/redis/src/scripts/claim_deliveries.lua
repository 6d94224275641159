-- Hands deliveries of a subscription to a member. KEYS: the prefix, the streams that it may claim from. ARGV: unit, member, how many, the lease
-- in milliseconds, 1 to take over what others have lost, 1 to take what the member had before it began or before it owned the stream, or 2
-- what it was handed by an answer that was lost, 1 to read what is new as well, and if one member owns each stream, that one, or nothing; the numbers of the streams; and of
-- what it has in its hands the number of the stream (0 is what was made again) and the entry.
-- Returns of each delivery: the number of its stream, entry, event, whether it is a suspect, crashes, and of a retry that has waited its attempts and
-- errors; 1 if there may be more of what it should
-- take before it reads what is new, 2 if there is more of what it had; and the last entries of the bell and the streams.
-- From a stream of its own it takes what others have, whoever that is, if it should take over.
local prefix, unit, me, room, lease, owner = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[8]
local known, marks = redis.call('HGET', prefix .. ':subscriptions', unit), prefix .. ':marks:' .. unit
if not known then return redis.error_reply('NOGROUP the subscription is not known') end
local info, taken, in_hand = cjson.decode(known), {}, {}
for i = 8 + #KEYS, #ARGV, 2 do in_hand[ARGV[i] .. ' ' .. ARGV[i + 1]] = true end
local streams = { { number = 0, key = prefix .. ':again:' .. unit, mine = true } }
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
for i = 2, #KEYS do
    local number, mine = tonumber(ARGV[7 + i]), true
    if owner ~= '' then
        local who, at = string.match(redis.call('HGET', prefix .. ':owners:' .. unit, number) or '', '(%S+) (%d+)')
        mine = who == owner and tonumber(at) > now
    end
    if mine then streams[#streams + 1] = { number = number, key = KEYS[i], mine = owner ~= '' } end
end
-- What was made again is everybody's.
streams[1].mine = false
local function field(entry, name)
    for i = 1, #entry[2], 2 do
        if entry[2][i] == name then return entry[2][i + 1] end
    end
end
local function ended(it, count)
    if it.number > 0 and count > 0 then redis.call('HINCRBY', it.key .. ':ended', unit, count) end
end
local strangers, has_marks = nil, redis.call('EXISTS', marks) == 1
local function hand(it, entry, suspect)
    if it.number > 0 and not matches(pattern_at(info, it.number, entry[1]), field(entry, 'type') or '') then
        strangers[#strangers + 1] = entry[1]
        return
    end
    -- A suspect that was given back is still one.
    local place = it.key .. ' ' .. entry[1]
    local crashes, mark = 0, has_marks and redis.call('HGET', marks, place)
    if mark then
        crashes = tonumber(string.match(mark, '%d+')) + (string.sub(mark, -1) == '!' and 1 or 0)
    end
    if mark or suspect then
        suspect, has_marks = true, true
        redis.call('HSET', marks, place, crashes)
    end
    -- Only what was made again may have been tried.
    local attempts = it.number == 0 and field(entry, 'attempts') or '0'
    local errors = it.number == 0 and field(entry, 'errors') or ''
    taken[#taken + 1] = { it.number, entry[1], field(entry, 'event') or '', suspect and 1 or 0, crashes, attempts, errors }
    room = room - 1
end
local function forget_strangers(it)
    if #strangers > 0 then ended(it, redis.call('XACK', it.key, unit, unpack(strangers))) end
end
local function claim(it, ids, suspect)
    if #ids == 0 then return 0 end
    local found = redis.call('XCLAIM', it.key, unit, me, 0, unpack(ids))
    strangers = {}
    for _, entry in ipairs(found) do hand(it, entry, suspect) end
    forget_strangers(it)
    -- Somebody has removed them from the stream; now they are not pending either.
    if it.number > 0 and #found < #ids then
        redis.call('HINCRBY', it.key .. ':lost', 'entries', #ids - #found)
        ended(it, #ids - #found)
    end
    return #found
end
local function pending(it, consumer)
    local ids = {}
    if room > 0 then
        for _, found in ipairs(redis.call('XPENDING', it.key, unit, '-', '+', room, consumer)) do ids[#ids + 1] = found[1] end
    end
    return ids
end
-- Of a stream of its own: whatever is in other hands, in its order.
local function take_all(it)
    local from = '-'
    while room > 0 do
        local found = redis.call('XPENDING', it.key, unit, from, '+', 1000)
        for _, one in ipairs(found) do
            if room > 0 and one[2] ~= me then
                local count = claim(it, { one[1] }, one[2] ~= '~')
                if one[2] == '~' then redis.call('HINCRBY', it.key .. ':taken', unit, count) end
            end
        end
        if #found < 1000 then return end
        from = '(' .. found[1000][1]
    end
end
local had_more = false
for _, it in ipairs(streams) do
    -- Before anything is claimed for this member, or that would be taken for what it had.
    if ARGV[6] ~= '0' then
        local ids = {}
        for _, mine in ipairs(redis.call('XPENDING', it.key, unit, '-', '+', 100000, me)) do
            if not in_hand[it.number .. ' ' .. mine[1]] then
                if #ids < room then ids[#ids + 1] = mine[1] else had_more = true end
            end
        end
        claim(it, ids, ARGV[6] == '1')
        -- Nothing goes before the rest of it.
        if had_more then room = 0 end
    end
    if it.mine then
        if ARGV[5] == '1' then take_all(it) end
    else
        -- Before anything newer, also if some of it was removed.
        local back = pending(it, '~')
        while #back > 0 do
            local found = claim(it, back, false)
            if it.number > 0 then redis.call('HINCRBY', it.key .. ':taken', unit, found) end
            back = pending(it, '~')
        end
    end
    if ARGV[5] == '1' and room > 0 and not it.mine then
        local ids = {}
        for _, lost in ipairs(redis.call('XPENDING', it.key, unit, 'IDLE', lease, '-', '+', room + 1000)) do
            if lost[2] ~= me and lost[2] ~= '~' and #ids < room then ids[#ids + 1] = lost[1] end
        end
        claim(it, ids, true)
    end
end
local more = had_more and 2 or room <= 0 and 1 or 0
for turn, it in ipairs(streams) do
    -- What does not match is read all the same; not endlessly at a time. Each stream has its share.
    for _ = 1, 8 do
        local share = math.ceil(room / (#streams - turn + 1))
        if share <= 0 or ARGV[7] == '0' then break end
        local count = math.min(math.max(share, 100), 1000)
        local found = redis.call('XREADGROUP', 'GROUP', unit, me, 'COUNT', count, 'STREAMS', it.key, '>')
        if not found then break end
        if it.number > 0 then redis.call('HINCRBY', it.key .. ':read', unit, #found[1][2]) end
        local surplus, rest = {}, room - share
        strangers = {}
        for _, entry in ipairs(found[1][2]) do
            if room > rest then hand(it, entry, false) else surplus[#surplus + 1] = entry[1] end
        end
        forget_strangers(it)
        if #surplus > 0 then
            surplus[#surplus + 1], more = 'JUSTID', math.max(more, 1)
            redis.call('XCLAIM', it.key, unit, '~', 0, unpack(surplus))
            if it.number > 0 then redis.call('HINCRBY', it.key .. ':given', unit, #surplus - 1) end
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
