-- Hands deliveries of a subscription to a member. KEYS: the stream. ARGV: unit, member, how many, the lease in milliseconds, 1 to take over
-- what others have lost, 1 to take what the member had before it began, or 2 what it was handed by an
-- answer that was lost, which is all but what follows: `main` or `again` and an entry, in turn. Returns the last entry of the stream and of the
-- bell, and of each delivery: which stream (`main`, `again`), entry, event, whether it is a suspect, crashes.
local stream, unit, me, room, lease = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local known, marks = redis.call('HGET', KEYS[1] .. ':subscriptions', ARGV[1]), KEYS[1] .. ':marks:' .. ARGV[1]
if not known then return redis.error_reply('NOGROUP the subscription is not known') end
local info = cjson.decode(known)
local streams = { { 'again', stream .. ':again:' .. unit }, { 'main', stream } }
local taken, in_hand = {}, {}
for i = 7, #ARGV, 2 do in_hand[ARGV[i] .. ARGV[i + 1]] = true end
local function field(entry, name)
    for i = 1, #entry[2], 2 do
        if entry[2][i] == name then return entry[2][i + 1] end
    end
end
local function hand(which, entry, suspect)
    local crashes = 0
    if suspect then
        local mark = redis.call('HGET', marks, entry[1])
        if mark then
            crashes = tonumber(string.match(mark, '%d+')) + (string.sub(mark, -1) == '!' and 1 or 0)
            redis.call('HSET', marks, entry[1], crashes)
        end
    end
    taken[#taken + 1] = { which, entry[1], field(entry, 'event') or '', suspect and 1 or 0, crashes }
    room = room - 1
end
local function claim(which, key, ids, suspect)
    if #ids == 0 then return end
    local found = redis.call('XCLAIM', key, unit, me, 0, unpack(ids))
    for _, entry in ipairs(found) do hand(which, entry, suspect) end
    -- Somebody has removed them from the stream; now they are not pending either.
    if which == 'main' and #found < #ids then redis.call('HINCRBY', stream .. ':lost', 'entries', #ids - #found) end
    return #found
end
local function pending(key, consumer)
    local ids = {}
    if room > 0 then
        for _, it in ipairs(redis.call('XPENDING', key, unit, '-', '+', room, consumer)) do ids[#ids + 1] = it[1] end
    end
    return ids
end
for _, it in ipairs(streams) do
    local which, key = it[1], it[2]
    -- Before anything is claimed for this member, or that would be taken for what it had.
    if ARGV[6] == '1' then claim(which, key, pending(key, me), true) end
    if ARGV[6] == '2' then
        local ids = {}
        for _, mine in ipairs(redis.call('XPENDING', key, unit, '-', '+', 100000, me)) do
            if not in_hand[which .. mine[1]] and #ids < room then ids[#ids + 1] = mine[1] end
        end
        claim(which, key, ids, false)
    end
    -- Before anything newer, also if some of it was removed.
    local back = pending(key, '~')
    while #back > 0 do
        local found = claim(which, key, back, false)
        if which == 'main' then redis.call('HINCRBY', stream .. ':taken', unit, found) end
        back = pending(key, '~')
    end
    if ARGV[5] == '1' and room > 0 then
        local ids = {}
        for _, lost in ipairs(redis.call('XPENDING', key, unit, 'IDLE', lease, '-', '+', room + 1000)) do
            if lost[2] ~= me and lost[2] ~= '~' and #ids < room then ids[#ids + 1] = lost[1] end
        end
        claim(which, key, ids, true)
    end
end
for _, it in ipairs(streams) do
    local which, key = it[1], it[2]
    -- What does not match is read all the same; not endlessly at a time.
    for _ = 1, 8 do
        if room <= 0 then break end
        local found = redis.call('XREADGROUP', 'GROUP', unit, me, 'COUNT', math.min(math.max(room, 100), 1000), 'STREAMS', key, '>')
        if not found then break end
        if which == 'main' then redis.call('HINCRBY', stream .. ':read', unit, #found[1][2]) end
        local strangers, surplus = {}, {}
        for _, entry in ipairs(found[1][2]) do
            if which == 'main' and not matches(pattern_at(info, entry[1]), field(entry, 'type') or '') then
                strangers[#strangers + 1] = entry[1]
            elseif room > 0 then
                hand(which, entry, false)
            else
                surplus[#surplus + 1] = entry[1]
            end
        end
        if #strangers > 0 then redis.call('XACK', key, unit, unpack(strangers)) end
        if #surplus > 0 then
            surplus[#surplus + 1] = 'JUSTID'
            redis.call('XCLAIM', key, unit, '~', 0, unpack(surplus))
        end
    end
end
local function last(key)
    local entry = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
    return entry and entry[1] or '0-0'
end
return { last(stream), last(stream .. ':bell'), taken }
