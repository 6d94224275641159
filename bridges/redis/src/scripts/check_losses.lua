-- Looks whether entries are gone that a subscription has not read. Each entry that was ever added has a position, counted from 1; what a
-- subscription has read and what is lost to it adds up to the position that it has reached. KEYS: the stream. ARGV: unit; what its last look
-- has told, or nothing: the name of the stream's life, entries that were added, entries that waited; and a new name.
-- Returns the three again, and what nobody was told yet: lost entries, and losses of which more is not known.
local stream, unit = KEYS[1], ARGV[1]
local names = { seen = stream .. ':seen', read = stream .. ':read', taken = stream .. ':taken', ended = stream .. ':ended', given = stream .. ':given', lost = stream .. ':lost', life = stream .. ':life' }
local function fields(answer)
    local told = {}
    for i = 1, #answer, 2 do told[answer[i]] = answer[i + 1] end
    return told
end
if redis.call('EXISTS', stream) == 0 then return false end
local info, group = fields(redis.call('XINFO', 'STREAM', stream)), nil
for _, it in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local told = fields(it)
    if told.name == unit then group = told end
end
if not group then return false end
local added, length, last = info['entries-added'], info.length, group['last-delivered-id']
-- What was read is in somebody's hands, or has ended.
local removed, reads = added - length, tonumber(redis.call('HGET', names.ended, unit) or '0') + group.pending
local reads_now = reads
local taken = tonumber(redis.call('HGET', names.taken, unit) or '0')
local seen, lost, unknown = redis.call('HGET', names.seen, unit), 0, 0
if seen then
    local parts = {}
    for part in string.gmatch(seen, '%S+') do parts[#parts + 1] = part end
    seen = { life = parts[1], position = tonumber(parts[2]), reads = tonumber(parts[3]), last = parts[4],
        added = tonumber(parts[5]), told = tonumber(parts[6]), deleted = parts[7],
        removed = tonumber(parts[8]) }
end
-- A stream that has fewer entries behind it than before is another one, or an earlier state of it.
local life = redis.call('GET', names.life)
if not life or (seen and seen.life == life and added < seen.added)
    or (ARGV[2] == life and added < tonumber(ARGV[3])) then
    life = ARGV[5]
    redis.call('SET', names.life, life)
end
-- It was made, and not looked at since.
if seen and seen.life == '-' then seen.life = life end
local ended, waited
local before = math.max(tonumber(ARGV[3]), seen and seen.added or 0)
if seen and seen.life ~= life then
    -- Of the stream that was, nothing is pending any more; what was read of it was counted apart, if not to the last.
    reads = math.max(reads, tonumber(redis.call('HGET', names.read, unit) or '0'))
    reads_now = reads
    redis.call('HSET', names.ended, unit, string.format('%.0f', reads - group.pending))
    waited = math.max(0, seen.added - seen.position - (reads - seen.reads) - seen.told)
    -- And what was given back and not taken again.
    waited = waited + math.max(0, tonumber(redis.call('HGET', names.given, unit) or '0') - taken)
    -- What an earlier state knows is older than what is known here.
    if seen.added <= added and ARGV[2] == seen.life then waited = tonumber(ARGV[4]) end
    ended, seen = seen.life, nil
elseif ARGV[2] ~= '' and ARGV[2] ~= life then
    ended, waited = ARGV[2], tonumber(ARGV[4])
end
-- Whoever is the first to miss it tells.
if ended and redis.call('HSETNX', names.lost, 'life:' .. ended .. ':' .. unit, 1) == 1 then
    -- Of an earlier state, what waits in it is not lost: no more than what it has fewer.
    lost, unknown = math.max(0, math.min(waited, before - added)), 1
end
-- How many entries of the stream there are in a range, if there are not too many.
local function count(from, to)
    local number = 0
    for _ = 1, 21 do
        local found = redis.call('XRANGE', stream, from, to, 'COUNT', 500)
        number = number + #found
        if #found < 500 then return number end
        from = '(' .. found[500][1]
    end
end
local since = seen and reads - seen.reads or 0
local position
if length == 0 or not is_after(info['last-generated-id'], last) then
    position = added
elseif is_after(info['recorded-first-entry-id'], last) then
    position = removed
elseif seen and (removed == seen.removed
    or (removed <= seen.position and not is_after(info['max-deleted-entry-id'], seen.last))) then
    -- Nothing has gone that was not read by the last look.
    position = seen.position + since
else
    -- From the end that is nearer, as far as is known.
    local reached = seen and seen.position + since or added
    if added - reached > reached - removed then
        local before = count('-', last)
        position = before and removed + before
    else
        local behind = count('(' .. last, '+')
        position = behind and added - behind
    end
end
local told, removed_then = 0, removed
if seen and position then
    lost = lost + math.max(0, position - seen.position - since - seen.told)
elseif seen then
    -- More of it has gone than can have been read.
    told = math.max(seen.told, removed - seen.position - since)
    lost = lost + told - seen.told
    position, reads, last, removed_then = seen.position, seen.reads, seen.last, seen.removed
end
-- What was given back and is in nobody's hands: if it was removed from the stream, it is pending no more when it is claimed.
local function back()
    local left, removed_before = 0, length > 0 and '(' .. info['recorded-first-entry-id'] or '+'
    local from, to = '-', removed_before
    if not seen or is_after(info['max-deleted-entry-id'], seen.deleted) then to = '+' end
    for _ = 1, 20 do
        local ids = {}
        for _, it in ipairs(redis.call('XPENDING', stream, unit, from, to, 1000, '~')) do ids[#ids + 1] = it[1] end
        if #ids == 0 then break end
        from = '(' .. ids[#ids]
        ids[#ids + 1] = 'JUSTID'
        local gone = #ids - 1 - #redis.call('XCLAIM', stream, unit, '~', 0, unpack(ids))
        lost = lost + gone
        if gone > 0 then redis.call('HINCRBY', names.ended, unit, gone) end
    end
    for _, it in ipairs(redis.call('XPENDING', stream, unit)[4] or {}) do
        if it[1] == '~' then left = tonumber(it[2]) end
    end
    return left
end
local given_back = back()
if position then
    local text = string.format('%s %.0f %.0f %s %.0f %.0f %s %.0f', life, position, reads, last, added, told,
        info['max-deleted-entry-id'], removed_then)
    redis.call('HSET', names.seen, unit, text)
    redis.call('HSET', names.read, unit, string.format('%.0f', reads_now))
    redis.call('HSET', names.given, unit, string.format('%.0f', taken + given_back))
end
if lost > 0 then redis.call('HINCRBY', names.lost, 'entries', string.format('%.0f', lost)) end
if unknown > 0 then redis.call('HINCRBY', names.lost, 'unknown', unknown) end
-- Also what others have counted.
local news = {}
for _, name in ipairs({ 'entries', 'unknown' }) do
    local all = tonumber(redis.call('HGET', names.lost, name) or '0')
    news[#news + 1] = all - tonumber(redis.call('HGET', names.lost, name .. ':told') or '0')
    if news[#news] > 0 then redis.call('HSET', names.lost, name .. ':told', string.format('%.0f', all)) end
end
local waits = given_back + (position and math.max(0, added - position - told) or 0)
return { life, added, waits, news[1], news[2] }
