"""Counts the messages of feeds by type, in metrics."""

from typing import Final

import structlog
from prometheus_client import Counter

UNKNOWN_TYPES_MAX: Final = 32  # type names that become metric labels
OTHER_TYPES: Final = "other"  # the label of all further ones

log = structlog.get_logger()


class FeedMessageCounts:
    """Counts messages, and names each type that is not read once in the log."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._counters: dict[tuple[str, str], Counter] = {}  # to find the labels takes longer than to count
        self._unknown_types: set[str] = set()

    def add(self, feed: str, name: str, count: int = 1) -> None:
        """Count messages of one type."""
        counter = self._counters.get((feed, name))
        if counter is None:
            counter = self._counters[feed, name] = self._counter.labels(feed, name)
        counter.inc(count)

    def add_unread(self, feed: str, name: str) -> None:
        """Count one message of a type that is not read."""
        if name not in self._unknown_types and len(self._unknown_types) >= UNKNOWN_TYPES_MAX:
            name = OTHER_TYPES
        if name not in self._unknown_types:
            self._unknown_types.add(name)
            log.warning("messages of this type are not read", feed=feed, type=name)
        self.add(feed, name)
