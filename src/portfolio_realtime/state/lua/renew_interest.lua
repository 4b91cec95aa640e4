-- Renew interest in accounts of a shard. Accounts whose interest had ended are watched again.
-- KEYS: interest, interest in positions, changes. ARGV: ms until interest expires, length of the stream of
-- changes, number of those with positions, these, then all accounts.
local time = redis.call('TIME')
local expiry_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1])
local first = 4 + tonumber(ARGV[3])
local begun = {}
for index = 4, #ARGV do
  if redis.call('ZADD', index < first and KEYS[2] or KEYS[1], expiry_ms, ARGV[index]) == 1 then
    begun[#begun + 1] = ARGV[index]
  end
end
if #begun > 0 then
  redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[2], '*', 'ids', table.concat(begun, ','))
end
return 1
