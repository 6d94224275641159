-- Part of a script: the order of the entries of a stream.
local function id_parts(entry)
    local ms, seq = string.match(entry, '(%d+)-(%d+)')
    return tonumber(ms), tonumber(seq)
end
local function is_after(entry, other)
    local ms, seq = id_parts(entry)
    local other_ms, other_seq = id_parts(other)
    return ms > other_ms or (ms == other_ms and seq > other_seq)
end
