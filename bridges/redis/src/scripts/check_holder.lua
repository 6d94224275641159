-- Part of a script: its result if the member does not hold a delivery: 0 if another member holds it, 1 if it is settled; else nothing.
local function check_holder(me, key, xgroup, entry)
    local holder = holder_of(key, xgroup, entry)
    if not holder then return 1 end
    if holder ~= me then return 0 end
end
