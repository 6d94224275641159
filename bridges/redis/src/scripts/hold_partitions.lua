-- Shares the streams out among the members that serve a subscription: one owner of each, whose hold ends with its lease. KEYS: the prefix.
-- ARGV: unit, boot, the lease in milliseconds, how many streams there are, 0 to own none, 1 to own its share, or 2 the same, but nothing that
-- somebody else has had, who may only not have been able to say so; the numbers of those of which it has nothing in
-- its hands and that it may give up.
-- Returns the numbers of those that it owns; with a minus those of which it should take no more, so that it can give them up.
local prefix, unit, boot, streams = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[4])
local members, owners = prefix .. ':members:' .. unit, prefix .. ':owners:' .. unit
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local ends = string.format('%.0f', now + tonumber(ARGV[3]))
redis.call('ZREMRANGEBYSCORE', members, '-inf', now)
if ARGV[5] ~= '0' then redis.call('ZADD', members, ends, boot) else redis.call('ZREM', members, boot) end
local others = redis.call('ZRANGE', members, 0, -1)
table.sort(others)
local share = 0
for rank, it in ipairs(others) do
    if it == boot then share = math.floor(streams / #others) + (rank <= streams % #others and 1 or 0) end
end
local held, own, idle, changed = {}, {}, {}, false
for i = 6, #ARGV do idle[tonumber(ARGV[i])] = true end
local answer = redis.call('HGETALL', owners)
for i = 1, #answer, 2 do
    local who, at = string.match(answer[i + 1], '(%S+) (%d+)')
    local number = tonumber(answer[i])
    if who == boot then own[#own + 1] = number elseif tonumber(at) > now or ARGV[5] == '2' then held[number] = true end
end
table.sort(own)
local surplus, kept = #own - share, {}
for _, number in ipairs(own) do
    if surplus > 0 and idle[number] then
        redis.call('HDEL', owners, number)
        surplus, changed = surplus - 1, true
    else
        redis.call('HSET', owners, number, boot .. ' ' .. ends)
        held[number] = true
        kept[#kept + 1] = number
    end
end
-- Those with the highest numbers go first.
for i = #kept, 1, -1 do
    if surplus > 0 then kept[i], surplus = -kept[i], surplus - 1 end
end
for number = 1, streams do
    if #kept < share and not held[number] then
        redis.call('HSET', owners, number, boot .. ' ' .. ends)
        kept[#kept + 1] = number
    end
end
if changed then redis.call('XADD', prefix .. ':bell', 'MAXLEN', 1, '*', 'x', '') end
return kept
