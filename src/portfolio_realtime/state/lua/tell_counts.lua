-- Say that a server lives, tell how many it has of some names, and read how many the other living servers have.
-- KEYS: living servers, hash of this server. ARGV: server, ms for which it counts as living, ms until its hash
-- expires, what stands before and behind a server in the key of its hash, then name and count of each.
-- The hashes of the others are no KEYS, because only the set says which there are; they have the same tag.
-- Returns whether the hash was there, and the sums of the others, in the order of the names.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_ms))
redis.call('ZADD', KEYS[1], string.format('%.0f', now_ms + ARGV[2]), ARGV[1])
local others = {}
for _, server in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if server ~= ARGV[1] then
    others[#others + 1] = ARGV[4] .. server .. ARGV[5]
  end
end
local was_there = redis.call('EXISTS', KEYS[2])
local elsewhere = {}
for index = 6, #ARGV, 2 do
  if ARGV[index + 1] == '0' then
    redis.call('HDEL', KEYS[2], ARGV[index])
  else
    redis.call('HSET', KEYS[2], ARGV[index], ARGV[index + 1])
  end
  local sum = 0
  for _, other in ipairs(others) do
    sum = sum + (redis.call('HGET', other, ARGV[index]) or 0)
  end
  elsewhere[#elsewhere + 1] = sum
end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return {was_there, elsewhere}
