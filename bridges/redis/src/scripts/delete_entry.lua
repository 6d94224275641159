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
-- Nor shall anybody who has it again, or waits to try it again.
local status = KEYS[1] .. ':status:' .. ARGV[2]
for _, field in ipairs(redis.call('HKEYS', status)) do
    local unit = string.match(field, '^again:(.*)')
    local again, later = KEYS[1] .. ':again:' .. (unit or ''), KEYS[1] .. ':later:' .. (unit or '')
    for _, text in ipairs(unit and redis.call('ZRANGE', later, 0, -1) or {}) do
        local it = retry_of(text)
        if it and it.id == ARGV[2] then redis.call('ZREM', later, text) end
    end
    for _, it in ipairs(unit and redis.call('XRANGE', again, '-', '+') or {}) do
        for i = 1, #it[2], 2 do
            if it[2][i] == 'id' and it[2][i + 1] == ARGV[2] then
                redis.call('XACK', again, unit, it[1])
                redis.call('XDEL', again, it[1])
            end
        end
    end
end
redis.call('DEL', status)
return 1
