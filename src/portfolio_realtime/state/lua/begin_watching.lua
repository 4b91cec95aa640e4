-- A server watches accounts of a shard from now on: announce it, and read what was published of them so far.
-- KEYS: interest, interest in positions, changes, valuations, lease of the shard.
-- ARGV: PUBLISH or SPUBLISH, ms until interest expires, length of the stream of changes, the server, number of
-- those with positions, these, then all accounts (as `interest` cuts them).
-- Returns whether a calculator keeps the shard, and the stored publications in the order of the accounts.
local time = redis.call('TIME')
local expiry_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2])
local first = 6 + tonumber(ARGV[5])
local begun = {}
for index = 6, #ARGV do
  local pair = ARGV[index] .. ' ' .. ARGV[4]
  if redis.call('ZADD', index < first and KEYS[2] or KEYS[1], expiry_ms, pair) == 1 then
    begun[#begun + 1] = pair
  end
end
if #begun > 0 then
  redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[3], '*', 'ids', table.concat(begun, ','))
end
redis.call(ARGV[1], KEYS[1], table.concat(ARGV, ',', first))
return {redis.call('EXISTS', KEYS[5]), redis.call('HMGET', KEYS[4], unpack(ARGV, first))}
