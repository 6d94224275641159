-- Joins or leaves the members that share the partitions of a subscription, renews the holds of this member, releases and acquires
-- partitions, and shows the result. A partition has one owner, whose hold ends with its lease.
-- KEYS: the prefix, the streams.
-- ARGV: consumer group, boot id, the lease in milliseconds, 1 to be a member or 0 to leave, 1 if the expired holds of others count as well;
-- the numbers of partitions to acquire; and with a minus those to release.
-- Returns: the members; the partitions that are held, each as its number and its owner.
-- Touches: the set of members, the hash of owners (at most 64 fields), the notify stream.
local prefix, boot = KEYS[1], ARGV[2]
local members, owners = prefix .. ':members:' .. ARGV[1], prefix .. ':owners:' .. ARGV[1]
local now = now_millis()
local ends = string.format('%.0f', now + tonumber(ARGV[3]))
redis.call('ZREMRANGEBYSCORE', members, '-inf', now)
if ARGV[4] == '1' then redis.call('ZADD', members, ends, boot) else redis.call('ZREM', members, boot) end
local wanted, held, released = {}, {}, false
for i = 6, #ARGV do wanted[tonumber(ARGV[i])] = true end
local holds = redis.call('HGETALL', owners)
for i = 1, #holds, 2 do
    local owner, at = string.match(holds[i + 1], '(%S+) (%d+)')
    local number = tonumber(holds[i])
    if owner == boot then
        if wanted[-number] then
            redis.call('HDEL', owners, number)
            released = true
        else
            wanted[number] = true
        end
    elseif tonumber(at) > now or ARGV[5] == '1' then
        held[#held + 1], held[#held + 2], wanted[number] = number, owner, nil
    end
end
for number in pairs(wanted) do
    if number > 0 then
        redis.call('HSET', owners, number, boot .. ' ' .. ends)
        held[#held + 1], held[#held + 2] = number, boot
    end
end
if released then notify(prefix) end
return { redis.call('ZRANGE', members, 0, -1), held }
