"""A primary and its replicas as ElastiCache has them: Debian's redis-server, TLS, a user for each service.

The primary endpoint is a port that leads somewhere else once it is told so: what was open before stays open,
as with a name whose address changes.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, Final

from portfolio_harness.chaos.cut_proxy import CutProxy
from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.config import valkey_url
from portfolio_realtime.state import rights
from portfolio_realtime.state.embedded import free_port
from tests.interoperability.programs import need
from tests.support.access import words_of
from tests.support.authority import LOOPBACK, Certificates

ADMIN: Final = "admin"
SYNC_S_MAX: Final = 60.0
FAILOVER_MS: Final = 20_000


class RedisNode(ValkeyNode):
    """One redis-server that speaks TLS only, and asks clients and replicas for a certificate."""

    def __init__(self, folder: Path, certificates: Certificates, passwords: dict[str, str]) -> None:
        super().__init__(free_port(), program=need("redis-server"))
        self._folder = folder / f"node-{self.port}"
        self._certificates = certificates
        self._passwords = passwords

    @property
    def url(self) -> str:
        """Its administrator's."""
        return url_at(self.port, ADMIN, self._passwords[ADMIN], self._certificates)

    async def start(self, primary: int | None = None) -> None:
        """Start, as a replica of the node at port `primary`, and wait until it answers."""
        self._folder.mkdir(exist_ok=True)
        (self._folder / "users.acl").write_text(self._users())
        follows = () if primary is None else ("--replicaof", LOOPBACK, str(primary))
        self._options = (*self._with_tls(), *follows)
        await super().start()

    def _users(self) -> str:
        lines = ["user default off", f"user {ADMIN} on >{self._passwords[ADMIN]} ~* &* +@all"]
        for user in rights.COMMANDS:
            granted = words_of(rights.access_string(user), is_redis_7_0=True)
            lines.append(f"user {user} >{self._passwords[user]} {' '.join(granted)}")
        return "\n".join(lines) + "\n"

    def _with_tls(self) -> Sequence[str]:
        files = self._certificates
        return (
            *("--port", "0", "--tls-port", str(self.port), "--tls-replication", "yes"),
            *("--tls-auth-clients", "yes", "--tls-ca-cert-file", str(files.authority)),
            *("--tls-cert-file", str(files.server), "--tls-key-file", str(files.server_key)),
            *("--aclfile", str(self._folder / "users.acl"), "--masteruser", ADMIN),
            *("--masterauth", self._passwords[ADMIN], "--dir", str(self._folder)),
            *("--logfile", str(self._folder / "log"), "--loglevel", "notice"),
            *("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"),
            *("--repl-ping-replica-period", "1"),
        )


def url_at(port: int, user: str, password: str, files: Certificates) -> str:
    """A URL with the authority and the certificate of a client."""
    tls_files = {
        "ssl_ca_certs": str(files.authority),
        "ssl_certfile": str(files.client),
        "ssl_keyfile": str(files.client_key),
    }
    return valkey_url.url_of(LOOPBACK, port, 0, user=user, password=password, tls_files=tls_files)


class ReplicationGroup:
    """One primary, two replicas, and the endpoint that names the primary."""

    REPLICAS: Final = 2

    def __init__(self, folder: Path, certificates: Certificates, endpoint: CutProxy) -> None:
        self.certificates = certificates
        self.passwords = {user: secrets.token_urlsafe(24) for user in (ADMIN, *rights.COMMANDS)}
        self.nodes = [RedisNode(folder, certificates, self.passwords) for _ in range(1 + self.REPLICAS)]
        self.primary = self.nodes[0]
        self.endpoint = endpoint

    async def start(self) -> None:
        """Start all, and wait until the replicas follow."""
        await self.primary.start()
        for node in self.replicas:
            await node.start(self.primary.port)
        await self.whole()
        self.move()

    async def stop(self) -> None:
        """End all."""
        for node in self.nodes:
            await node.kill()

    @property
    def replicas(self) -> list[RedisNode]:
        """All but the primary."""
        return [node for node in self.nodes if node is not self.primary]

    async def whole(self) -> None:
        """Wait until every replica has what the primary has."""
        async with asyncio.timeout(SYNC_S_MAX):
            while True:
                said = await self.primary.do("INFO", "replication")
                followers = [said.get(f"slave{number}", {}) for number in range(self.REPLICAS)]
                if all(follower.get("state") == "online" for follower in followers):
                    return
                await asyncio.sleep(0.1)

    def move(self) -> None:
        """Let the endpoint lead new connections to the primary of now."""
        self.endpoint.target = self.primary.port

    def settings(self, user: str) -> dict[str, str]:
        """What leads a service to the endpoint, by environment name."""
        files = self.certificates
        return {
            "REDIS_HOST": LOOPBACK,
            "REDIS_PORT": str(self.endpoint.port),
            "REDIS_USER": user,
            "REDIS_PASSWORD": self.passwords[user],
            "REDIS_SSL": "true",
            "REDIS_CA_FILE": str(files.authority),
            "REDIS_CERT_FILE": str(files.client),
            "REDIS_KEY_FILE": str(files.client_key),
        }

    def url(self, user: str) -> str:
        """The endpoint's, for one of the users."""
        return url_at(self.endpoint.port, user, self.passwords[user], self.certificates)

    # Failovers: afterwards `primary` is another node, and the endpoint still leads to the one before

    async def fail_over(self) -> None:
        """The primary hands over to a replica that has everything, and follows it."""
        old, new = self.primary, self.replicas[0]
        await old.do("FAILOVER", "TO", LOOPBACK, new.port, "TIMEOUT", FAILOVER_MS)
        async with asyncio.timeout(SYNC_S_MAX):
            while (await old.do("ROLE"))[0] != b"slave":
                await asyncio.sleep(0.02)
        await self._follow(new)

    async def reassign(self) -> None:
        """By hand, as when the size of nodes changes: a replica becomes the primary, the others follow."""
        new = self.replicas[0]
        await new.do("REPLICAOF", "NO", "ONE")
        await self._follow(new)

    async def lose_primary(self) -> None:
        """Kill -9, and a replica is promoted; the dead one comes back as a replica."""
        lost, new = self.primary, self.replicas[0]
        await lost.kill()
        await new.do("REPLICAOF", "NO", "ONE")
        self.primary = new
        for node in self.replicas:
            if node is not lost:
                await node.do("REPLICAOF", LOOPBACK, new.port)

    async def detach(self) -> None:
        """The replica that is promoted next gets nothing any more: it falls behind."""
        await self.replicas[0].do("REPLICAOF", "NO", "ONE")

    async def bring_back(self, node: RedisNode) -> None:
        """Start a dead node as a replica."""
        await node.start(self.primary.port)
        await self.whole()

    async def _follow(self, new: RedisNode) -> None:
        self.primary = new
        for node in self.replicas:
            await node.do("REPLICAOF", LOOPBACK, new.port)

    async def denied(self) -> list[Any]:
        """What any user was refused at any node."""
        living = [node for node in self.nodes if node.is_running]
        return [entry for node in living for entry in await node.do("ACL", "LOG")]


@contextlib.asynccontextmanager
async def replication_group(folder: Path, certificates: Certificates) -> AsyncGenerator[ReplicationGroup]:
    """Started, its endpoint in front of its primary."""
    async with CutProxy(0) as endpoint:
        group = ReplicationGroup(folder, certificates, endpoint)
        try:
            await group.start()
            yield group
        finally:
            await group.stop()
