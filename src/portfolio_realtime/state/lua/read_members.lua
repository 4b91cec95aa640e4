-- Remove expired members of a sorted set, by the clock of the node that holds it, and read the others.
-- KEYS: sorted set. ARGV: our own member. Returns the ms after which the first other one expires unless it is
-- prolonged, or -1 without others; then the members.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_ms))
local members = redis.call('ZRANGE', KEYS[1], 0, -1)
local left_ms = -1
for _, member in ipairs(members) do
  if member ~= ARGV[1] then
    local member_left_ms = redis.call('ZSCORE', KEYS[1], member) - now_ms
    left_ms = left_ms < 0 and member_left_ms or math.min(left_ms, member_left_ms)
  end
end
return {left_ms, members}
