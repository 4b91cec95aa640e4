"""The kinds of Valkey that a system can run on: one server or a cluster, of Valkey or of Redis."""

import enum
from typing import Self

from portfolio_harness.valkey_cluster import ValkeyCluster
from portfolio_harness.valkey_node import ValkeyNode, redis_program


class ValkeyKind(enum.StrEnum):
    """One server or a cluster, and the program that it runs."""

    EMBEDDED = "embedded"  # one server of the installed package
    REDIS = "redis"  # one server of Debian's package
    CLUSTER = "cluster"  # three primaries with a replica each, of the installed package
    REDIS_CLUSTER = "redis-cluster"  # the same, of Debian's package

    @classmethod
    def packaged(cls, *, is_cluster: bool) -> Self:
        """The kind that runs the installed package."""
        return cls(cls.CLUSTER if is_cluster else cls.EMBEDDED)

    @property
    def is_cluster(self) -> bool:
        """Whether it has several nodes."""
        return self in (self.CLUSTER, self.REDIS_CLUSTER)

    @property
    def program(self) -> str:
        """The path of the server's program; "": the installed package's. Raises SettingsError."""
        return redis_program() if self in (self.REDIS, self.REDIS_CLUSTER) else ""


Valkeys = ValkeyNode | ValkeyCluster
"""One server or a cluster: both have `url`, `pids`, `start`, `kill`, `stop`, `flush`, `primaries`, `keep`."""


def valkeys(kind: ValkeyKind) -> Valkeys:
    """A server or a cluster that is not started yet. Raises SettingsError when its program is missing."""
    return ValkeyCluster(program=kind.program) if kind.is_cluster else ValkeyNode(program=kind.program)
