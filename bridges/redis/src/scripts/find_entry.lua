-- Finds the entry of an event.
-- KEYS: the prefix, the streams.
-- ARGV: event id; if the id tells when it was made: that time and its tolerance, both in milliseconds.
-- Returns: the number of its stream, the entry and the event; nothing if there is none.
-- Touches: the index of the id, and the entry that it names; else the entries of the streams within the tolerance, 500 at a time, with their
-- events.
local prefix, id = KEYS[1], ARGV[1]
local index = redis.call('GET', prefix .. ':at:' .. id)
if index then
    local number, entry = string.match(index, '(%d+) (%S+)')
    local found = KEYS[number + 1] and redis.call('XRANGE', KEYS[number + 1], entry, entry)[1]
    return found and { number, entry, field(found, 'event') }
end
local function scan(from, to)
    for number = 1, #KEYS - 1 do
        local from = from
        while from do
            local page = redis.call('XRANGE', KEYS[number + 1], from, to, 'COUNT', 500)
            for _, found in ipairs(page) do
                if field(found, 'id') == id then return { number, found[1], field(found, 'event') } end
            end
            from = #page == 500 and '(' .. page[500][1]
        end
    end
end
if not ARGV[2] then return false end
-- Most events are stored within milliseconds of their making: the scan begins there and widens.
local at, tolerance, reach = tonumber(ARGV[2]), tonumber(ARGV[3]), 2
local found = scan(math.max(at - reach, 0), at + reach)
while not found and reach < tolerance do
    local further = math.min(reach * 10, tolerance)
    found = scan(math.max(at - further, 0), math.max(at - reach - 1, 0)) or scan(at + reach + 1, at + further)
    reach = further
end
return found or false
