-- The entry of an event. KEYS: the prefix, the streams. ARGV: id, and the time in it and how far that may be off, in milliseconds, or nothing if
-- it does not tell. Returns the number of its stream, the entry and the event.
local prefix, id = KEYS[1], ARGV[1]
local function event(found)
    for i = 1, #found[2], 2 do
        if found[2][i] == 'event' then return found[2][i + 1] end
    end
end
local index = redis.call('GET', prefix .. ':at:' .. id)
if index then
    local number, entry = string.match(index, '(%d+) (%S+)')
    local found = KEYS[number + 1] and redis.call('XRANGE', KEYS[number + 1], entry, entry)[1]
    return found and { number, entry, event(found) }
end
local function look(from, to)
    for number = 1, #KEYS - 1 do
        local from = from
        while from do
            local found = redis.call('XRANGE', KEYS[number + 1], from, to, 'COUNT', 500)
            for _, it in ipairs(found) do
                for i = 1, #it[2], 2 do
                    if it[2][i] == 'id' and it[2][i + 1] == id then return { number, it[1], event(it) } end
                end
            end
            from = #found == 500 and '(' .. found[500][1]
        end
    end
end
if not ARGV[2] then return false end
-- Most are stored as soon as they are made, so it looks there first.
local at, off, reach = tonumber(ARGV[2]), tonumber(ARGV[3]), 2
local found = look(math.max(at - reach, 0), at + reach)
while not found and reach < off do
    local further = math.min(reach * 10, off)
    found = look(math.max(at - further, 0), math.max(at - reach - 1, 0)) or look(at + reach + 1, at + further)
    reach = further
end
return found or false
