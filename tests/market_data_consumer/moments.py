"""Times of day as a trade of the stream has them."""

import msgspec


def raw_moment(text: str | None) -> msgspec.Raw:
    """Not decoded yet."""
    return msgspec.Raw(msgspec.json.encode(text))
