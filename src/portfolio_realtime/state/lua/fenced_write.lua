-- Write fields of a hash and announce it, in one step, unless a newer owner has written here.
-- KEYS: fence, hash. ARGV: token, PUBLISH or SPUBLISH, channel, message ('' for none), number of fields to
-- set, then field and value of each, then the fields to delete. Returns 0, or the newer token if refused.
-- Fields are set 500 at a time, because Lua's unpack is limited.
local fence, token = tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1])
if token < fence then
  return fence
end
if token > fence then
  redis.call('SET', KEYS[1], ARGV[1])
end
local last_set = 5 + 2 * tonumber(ARGV[5])
for first = 6, last_set, 1000 do
  redis.call('HSET', KEYS[2], unpack(ARGV, first, math.min(first + 999, last_set)))
end
for index = last_set + 1, #ARGV do
  redis.call('HDEL', KEYS[2], ARGV[index])
end
if ARGV[4] ~= '' then
  redis.call(ARGV[2], ARGV[3], ARGV[4])
end
return 0
