-- Take a free lease, or take our own again. The fencing token grows with each grant; its floor is the
-- wall clock, so that it grows even across a lost server.
-- KEYS: lease, granted. ARGV: holder, lease_ms. Returns the token, or 0 when somebody else holds the lease.
local current = redis.call('GET', KEYS[1])
if current and string.sub(current, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then
  return 0
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local token = math.max(now_ms, tonumber(redis.call('GET', KEYS[2]) or '0') + 1)
local token_text = string.format('%.0f', token)
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. token_text, 'PX', ARGV[2])
redis.call('SET', KEYS[2], token_text)
return token
