-- A server watches accounts of a shard from now on, or renews its interest in them.
-- KEYS: interest, interest in positions, changes; to begin also valuations, lease of the shard.
-- ARGV: ms until interest expires, length of the stream of changes, the server, number of accounts with positions,
-- PUBLISH or SPUBLISH ('' to renew), the accounts with positions, then all accounts (as `interest` cuts them).
-- To begin announces the accounts, and returns whether a calculator keeps the shard, and what was published so
-- far, in their order. To renew returns the accounts whose interest had ended, which are watched again; one whose
-- positions are watched again, too, is there twice.
local time = redis.call('TIME')
local expiry_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1])
local first = 6 + tonumber(ARGV[4])
local begun, pairs_begun = {}, {}
for index = 6, #ARGV do
  local pair = ARGV[index] .. ' ' .. ARGV[3]
  if redis.call('ZADD', index < first and KEYS[2] or KEYS[1], expiry_ms, pair) == 1 then
    begun[#begun + 1] = ARGV[index]
    pairs_begun[#begun] = pair
  end
end
if #begun > 0 then
  redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[2], '*', 'ids', table.concat(pairs_begun, ','))
end
if ARGV[5] == '' then
  return begun
end
redis.call(ARGV[5], KEYS[1], table.concat(ARGV, ',', first))
return {redis.call('EXISTS', KEYS[5]), redis.call('HMGET', KEYS[4], unpack(ARGV, first))}
