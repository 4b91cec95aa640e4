-- Which of these commands may the user of this connection not give? None is given.
-- KEYS: one key, only to say at which node of a cluster. ARGV: each a command with arguments, as a MessagePack
-- array. Returns the places of those that it may not give. A command that the server does not have counts as allowed.
local refused = {}
for index = 1, #ARGV do
  local is_known, is_allowed = pcall(redis.acl_check_cmd, unpack(cmsgpack.unpack(ARGV[index])))
  if is_known and not is_allowed then
    refused[#refused + 1] = index
  end
end
return refused
