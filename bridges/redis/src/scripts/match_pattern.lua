-- Part of a script: whether a pattern matches an event type. The rule is that of `eventbroker::Pattern`.
local function split(text)
    local segments = {}
    for segment in string.gmatch(text .. '.', '([^.]*)%.') do segments[#segments + 1] = segment end
    return segments
end
local function matches(pattern, event_type)
    if #pattern == 1 and pattern[1] == '*' then return true end
    local segments, fixed = split(event_type), #pattern
    if pattern[#pattern] == '**' then
        fixed = fixed - 1
        if #segments <= fixed then return false end
    elseif #segments ~= fixed then
        return false
    end
    for i = 1, fixed do
        if pattern[i] ~= '*' and pattern[i] ~= segments[i] then return false end
    end
    return true
end
-- The pattern that a subscription had when an entry of the stream of that number was stored, in segments.
local function pattern_at(record, number, entry)
    for _, earlier in ipairs(record.patterns or {}) do
        if not is_after(entry, earlier.until_entries[number] or '0-0') then return split(earlier.pattern) end
    end
    record.segments = record.segments or split(record.pattern)
    return record.segments
end
