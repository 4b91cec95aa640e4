-- Say that some accounts of a shard are watched from now on, and read what was published of them.
-- KEYS: interest, interest in positions, valuations, lease of the shard.
-- ARGV: expiry in ms, number of those with positions, these, then all accounts (as `interest` cuts them).
-- Returns whether a calculator keeps the shard, and the stored publications in the order of the accounts.
local first = 3 + tonumber(ARGV[2])
for index = 3, #ARGV do
  redis.call('ZADD', index < first and KEYS[2] or KEYS[1], ARGV[1], ARGV[index])
end
redis.call('PUBLISH', KEYS[1], table.concat(ARGV, ',', first))
return {redis.call('EXISTS', KEYS[4]), redis.call('HMGET', KEYS[3], unpack(ARGV, first))}
