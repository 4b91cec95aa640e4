-- Prolong a lease that is still ours. KEYS: lease. ARGV: value, lease_ms. Returns 1, or 0 if it is lost.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
