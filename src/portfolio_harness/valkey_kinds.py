"""The kinds of shared state that the services run on here: one server or a cluster, of Valkey or of Redis."""

import enum

from portfolio_harness.valkey_cluster import ValkeyCluster
from portfolio_harness.valkey_node import ValkeyNode, redis_program


class ValkeyKind(enum.StrEnum):
    """What it is, and whose program."""

    EMBEDDED = "embedded"  # one server of the installed package
    REDIS = "redis"  # one server of Debian's package
    CLUSTER = "cluster"  # three primaries with a replica each, of the installed package
    REDIS_CLUSTER = "redis-cluster"  # the same of Debian's package

    @property
    def is_cluster(self) -> bool:
        """Has it several nodes?"""
        return self in (self.CLUSTER, self.REDIS_CLUSTER)

    @property
    def program(self) -> str:
        """Path of the server's program; "": the installed package's. Raises SettingsError with the remedy."""
        return redis_program() if self in (self.REDIS, self.REDIS_CLUSTER) else ""


Valkeys = ValkeyNode | ValkeyCluster
"""One server or a cluster: both have `url`, `pids`, `start`, `kill`, `stop`, `flush`, `primaries`, `keep`."""


def valkeys(kind: ValkeyKind) -> Valkeys:
    """One that has not been started yet. Raises SettingsError when its program is not installed."""
    return ValkeyCluster(program=kind.program) if kind.is_cluster else ValkeyNode(program=kind.program)
