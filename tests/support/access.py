"""Access strings as the server that the tests run on takes them."""

from tests.conftest import KIND

UNKNOWN_TO_REDIS_7_0 = "+client|setinfo"  # came with Redis 7.2


def words_of(access: str, *, is_redis_7_0: bool = bool(KIND.program)) -> list[str]:
    """The words of an access string for `ACL SETUSER`."""
    return [word for word in access.split() if not (is_redis_7_0 and word == UNKNOWN_TO_REDIS_7_0)]
