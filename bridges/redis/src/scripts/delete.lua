-- Removes an entry that nobody shall read any more. KEYS: the prefix, its stream. ARGV: entry, event id. Returns how many were removed.
local stream, entry = KEYS[2], ARGV[1]
if redis.call('XDEL', stream, entry) == 0 then return 0 end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local told = {}
    for i = 1, #group, 2 do told[group[i]] = group[i + 1] end
    local ended = redis.call('XACK', stream, told.name, entry)
    -- To whom it was not delivered, it is no loss.
    if is_after(entry, told['last-delivered-id']) then ended = 1 end
    if ended > 0 then redis.call('HINCRBY', stream .. ':ended', told.name, ended) end
end
redis.call('DEL', KEYS[1] .. ':status:' .. ARGV[2])
return 1
