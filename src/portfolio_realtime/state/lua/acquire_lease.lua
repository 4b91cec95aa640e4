-- Acquire a free lease, or our own again. The fencing token grows with each grant. It is at least the wall
-- clock, so that it grows even after the server's data is lost, and above the newest token that refused us.
-- KEYS: lease, granted. ARGV: holder, lease_ms, newest token that has refused us, '1' to leave a lease that
-- was never granted to others. Returns the token, 0 if another process holds the lease, -1 if it is left.
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
