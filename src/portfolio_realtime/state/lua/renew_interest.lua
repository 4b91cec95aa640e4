-- Renew a server's interest in accounts of a shard. Accounts whose interest had ended are watched again.
-- KEYS: interest, interest in positions, changes. ARGV: ms until interest expires, length of the stream of
-- changes, the server, number of those with positions, these, then all accounts.
-- Returns the accounts that are watched again; one whose positions are watched again, too, is there twice.
local time = redis.call('TIME')
local expiry_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1])
local first = 5 + tonumber(ARGV[4])
local begun, again = {}, {}
for index = 5, #ARGV do
  local pair = ARGV[index] .. ' ' .. ARGV[3]
  if redis.call('ZADD', index < first and KEYS[2] or KEYS[1], expiry_ms, pair) == 1 then
    begun[#begun + 1] = pair
    again[#again + 1] = ARGV[index]
  end
end
if #begun > 0 then
  redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[2], '*', 'ids', table.concat(begun, ','))
end
return again
