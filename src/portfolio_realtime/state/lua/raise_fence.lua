-- Raise a fence to a token that has been seen, unless it is there or beyond. KEYS: fence. ARGV: token.
if tonumber(ARGV[1]) > tonumber(redis.call('GET', KEYS[1]) or '0') then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 1
