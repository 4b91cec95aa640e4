-- Say that a server lives, tell how many it has of some names, and read how many the other living servers have.
-- KEYS: living servers, hash of this server. ARGV: server, ms for which it counts as living, ms until its hash
-- expires, what stands before and behind a server in the key of its hash, then as one MessagePack array of each
-- name: the name, the count, how many of them may be taken off, and the limit beyond which they are.
-- The hashes of the others are no KEYS, because only the set says which there are; they have the same tag.
-- Returns whether the hash was there, then in the order of the names: the sums of the others, and how many were
-- taken off. That happens here, so that of two servers that judge at once only one takes off the same excess.
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
local told = cmsgpack.unpack(ARGV[6])
local elsewhere, taken_off = {}, {}
for index = 1, #told, 4 do
  local name, count = told[index], told[index + 1]
  local sum = 0
  for _, other in ipairs(others) do
    sum = sum + (redis.call('HGET', other, name) or 0)
  end
  local excess = math.max(0, math.min(told[index + 2], count + sum - told[index + 3]))
  if count > excess then
    redis.call('HSET', KEYS[2], name, string.format('%.0f', count - excess))
  else
    redis.call('HDEL', KEYS[2], name)
  end
  elsewhere[#elsewhere + 1] = sum
  taken_off[#taken_off + 1] = excess
end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return {was_there, elsewhere, taken_off}
