-- Prolong membership in a group. KEYS: sorted set. ARGV: ms until it expires, members.
-- The clock is that of the node that holds the set, because the clocks of nodes differ.
local time = redis.call('TIME')
local expiry_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1])
for index = 2, #ARGV do
  redis.call('ZADD', KEYS[1], expiry_ms, ARGV[index])
end
return 1
