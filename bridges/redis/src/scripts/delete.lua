-- Removes an entry that nobody shall read any more. KEYS: the stream. ARGV: entry, event id. Returns how many were removed.
local stream, entry = KEYS[1], ARGV[1]
if redis.call('XDEL', stream, entry) == 0 then return 0 end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local told = {}
    for i = 1, #group, 2 do told[group[i]] = group[i + 1] end
    redis.call('XACK', stream, told.name, entry)
    -- To whom it was not delivered, it is no loss.
    if is_after(entry, told['last-delivered-id']) then redis.call('HINCRBY', stream .. ':read', told.name, 1) end
end
redis.call('DEL', stream .. ':status:' .. ARGV[2])
return 1
