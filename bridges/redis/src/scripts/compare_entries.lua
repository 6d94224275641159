-- Entries of a stream in their order.
local function number(entry)
    local ms, seq = string.match(entry, '(%d+)-(%d+)')
    return tonumber(ms), tonumber(seq)
end
local function is_after(entry, other)
    local ms, seq = number(entry)
    local other_ms, other_seq = number(other)
    return ms > other_ms or (ms == other_ms and seq > other_seq)
end
-- The pattern that a subscription had when an entry was stored in the stream of that number, in segments.
local function pattern_at(info, number, entry)
    for _, earlier in ipairs(info.patterns or {}) do
        if not is_after(entry, earlier.until_entries[number] or '0-0') then return split(earlier.pattern) end
    end
    info.segments = info.segments or split(info.pattern)
    return info.segments
end
