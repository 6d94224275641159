-- A retry that waits, as it was stored. Nothing if somebody else has written there: that may not stand in the way of the others.
local function retry_of(text)
    local is_json, it = pcall(cjson.decode, text)
    if not is_json or type(it) ~= 'table' then return end
    return it.event and it.id and it.requeues and it.attempts and it.errors and it
end
