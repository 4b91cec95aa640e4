"""Only the new part of a history: later points, if the client's earlier ones are still right.

A late booking or a corrected record changes earlier points. The revision is a digest of all points so far. A
client that sends it with the time of its last point gets the rest, or everything if the digest differs.
"""

import hashlib
from typing import Any, Final

import msgspec

REVISION_BYTES: Final = 8

_encode = msgspec.json.Encoder().encode


def newer_points(history: dict[str, Any], since: str | None, revision: str | None) -> dict[str, Any]:
    """The history with its revision; after `since` (RFC 3339, as points have it) only what is later."""
    points: list[dict[str, Any]] = history["points"]
    newer = points
    if since is not None:
        earlier = [point for point in points if point["timestamp"] <= since]
        if revision is None or revision == _digest(history, earlier):
            newer = points[len(earlier) :]
    return {
        **history,
        "revision": _digest(history, points),
        "is_whole": len(newer) == len(points),
        "points": newer,
    }


def _digest(history: dict[str, Any], points: list[dict[str, Any]]) -> str:
    parts = _encode([history["range"], history["base"], points])
    return hashlib.blake2b(parts, digest_size=REVISION_BYTES).hexdigest()
