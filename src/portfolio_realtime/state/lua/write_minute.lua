-- Write fields of a hash that expires, in one step, unless a newer owner has written it.
-- KEYS: fence, hash. ARGV: token, seconds to live, then field and value of each. Returns 0, or the newer token.
local fence, token = tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1])
if token < fence then
  return fence
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
for index = 3, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[index], ARGV[index + 1])
end
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 0
