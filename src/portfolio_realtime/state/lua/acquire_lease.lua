-- Take a free lease, or take our own again. The fencing token grows with each grant; its floors are the
-- wall clock, so that it grows even across a lost server, and the newest token that has refused a write.
-- KEYS: lease, granted. ARGV: holder, lease_ms, newest token that has refused us, '1' to leave a lease that
-- nobody was ever granted to others. Returns the token, 0 when somebody else holds it, -1 when it is left.
local current = redis.call('GET', KEYS[1])
if current and string.sub(current, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then
  return 0
end
local granted = redis.call('GET', KEYS[2])
if ARGV[4] == '1' and not granted then
  return -1
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local token = math.max(now_ms, tonumber(granted or '0') + 1, tonumber(ARGV[3]) + 1)
local token_text = string.format('%.0f', token)
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. token_text, 'PX', ARGV[2])
redis.call('SET', KEYS[2], token_text)
return token
