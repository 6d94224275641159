-- Checks whether entries are gone that a subscription has not read, by the server's own figures: how many entries were ever added to the
-- stream, how many are left, and how many the consumer group has read.
-- KEYS: the stream.
-- ARGV: consumer group; the result of the last check of this member, or nothing.
-- Returns: the result of this check (the life of the stream, entries added, lag, highest deleted entry, the server's run in which the count
-- of read entries is believed); the lost entries and the losses of unknown size that no member has reported yet. Nothing if the stream or
-- the group is not there.
-- Touches: the figures of one stream and of its consumer groups, eight hash fields, the string `:life`; no entry is read.
local stream, xgroup = KEYS[1], ARGV[1]
local checked, deleted, losses = stream .. ':checked', stream .. ':deleted', stream .. ':lost'
local function parse(text)
    local life, added, lag, highest, run = string.match(text or '', '(%S+) (%d+) (%d+) (%S+) (%S+)')
    return life and { life = life, added = tonumber(added), lag = tonumber(lag), highest = highest, run = run }
end
if redis.call('EXISTS', stream) == 0 then return false end
local info, group = fields(redis.call('XINFO', 'STREAM', stream)), nil
for _, it in ipairs(groups_of(stream)) do
    if it.name == xgroup then group = it end
end
if not group then return false end
local added, last, highest = info['entries-added'], group['last-delivered-id'], info['max-deleted-entry-id']
local removed, stored = added - info.length, parse(redis.call('HGET', checked, xgroup))
local before, run, lost, unknown = parse(ARGV[2]) or stored, run_id(), 0, 0
-- A stream with fewer entries behind it than before is another stream, or an earlier state of it.
local life = redis.call('GET', stream .. ':life')
if not life or (before and before.life == life and added < before.added) then
    life = table.concat(redis.call('TIME'), '-')
    redis.call('SET', stream .. ':life', life)
end
if before and before.life ~= life then
    -- The first member to notice counts.
    if redis.call('HSETNX', losses, 'life:' .. before.life .. ':' .. xgroup, 1) == 1 then
        lost, unknown = math.min(before.lag, 1), 1
    end
    stored = stored and stored.life == life and stored
end
-- Where the group is at the end of the stream, or before its first entry, it has read or lost all entries up to that position.
-- A restart of Redis 7.0 resets the count of read entries. The count is believed in a run of the server in which it was
-- corrected, or in which the group is new.
local is_at_end = last == info['last-generated-id']
local believed_run = stored and stored.run or run
if is_at_end or info.length == 0 or is_after(info['recorded-first-entry-id'], last) then
    local position, read = is_at_end and added or removed, group['entries-read']
    -- Entries that were deleted through the bridge are no loss, nor those counted below.
    if read and run and stored and stored.run == run then
        lost = lost + math.max(0, position - read - tonumber(redis.call('HGET', deleted, xgroup) or '0'))
    end
    -- The server's figure includes the lost entries from here on.
    if read ~= position then redis.call('XGROUP', 'SETID', stream, xgroup, last, 'ENTRIESREAD', position) end
    if is_at_end then redis.call('HDEL', deleted, xgroup) end
    believed_run = run
elseif stored and is_after(highest, last) and highest ~= stored.highest and highest ~= redis.call('HGET', deleted, 'last') then
    -- Another client has deleted an entry that was not read, and perhaps more.
    lost, unknown = lost + 1, unknown + 1
    redis.call('HINCRBY', deleted, xgroup, 1)
end
local result = string.format('%s %.0f %.0f %s %s', life, added, group.lag or info.length, highest, believed_run or '-')
redis.call('HSET', checked, xgroup, result)
if lost > 0 then redis.call('HINCRBY', losses, 'entries', lost) end
if unknown > 0 then redis.call('HINCRBY', losses, 'unknown', unknown) end
-- Losses that other scripts have counted are reported here as well.
local news = {}
for _, name in ipairs({ 'entries', 'unknown' }) do
    local all = tonumber(redis.call('HGET', losses, name) or '0')
    news[#news + 1] = all - tonumber(redis.call('HGET', losses, name .. ':told') or '0')
    if news[#news] > 0 then redis.call('HSET', losses, name .. ':told', string.format('%.0f', all)) end
end
return { result, news[1], news[2] }
