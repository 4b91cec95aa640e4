-- Raise a fence to a token, unless it is as high already. KEYS: fence. ARGV: token. Returns 1.
if tonumber(ARGV[1]) > tonumber(redis.call('GET', KEYS[1]) or '0') then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 1
