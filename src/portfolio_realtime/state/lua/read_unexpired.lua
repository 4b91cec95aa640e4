-- Remove expired members of sorted sets, by the clock of the node that holds them, and read the others.
-- KEYS: sorted sets. Returns the members of each.
local time = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local members = {}
for index = 1, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[index], '-inf', now_ms)
  members[index] = redis.call('ZRANGE', KEYS[index], 0, -1)
end
return members
