-- Announce that some accounts of a shard are watched from now on, and read their stored publications.
-- KEYS: interest, interest in positions, valuations, lease of the shard.
-- ARGV: PUBLISH or SPUBLISH, ms until interest expires, number of accounts watched with positions, these
-- accounts, then all accounts (at most BEGIN_ACCOUNTS_MAX of `interest.py`).
-- Returns whether a calculator holds the shard, and the stored publications in the order of the accounts.
local time = redis.call('TIME')
local expiry_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2])
local first = 4 + tonumber(ARGV[3])
for index = 4, #ARGV do
  redis.call('ZADD', index < first and KEYS[2] or KEYS[1], expiry_ms, ARGV[index])
end
redis.call(ARGV[1], KEYS[1], table.concat(ARGV, ',', first))
return {redis.call('EXISTS', KEYS[4]), redis.call('HMGET', KEYS[3], unpack(ARGV, first))}
