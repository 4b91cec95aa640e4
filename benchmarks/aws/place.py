"""A network of its own that looks like the VPC to the services: names, addresses, certificates, the balancer.

What stands for what: HAProxy for the load balancer and for the TLS of ElastiCache, Valkey behind it with the
users of the template, or a redis-server that does TLS itself; an authority made here for those that every
machine trusts.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from portfolio_realtime.state.embedded import server_binary

BALANCER: Final = "10.42.0.10"  # in the VPC's public subnets
VALKEY: Final = "10.42.8.10"
SERVER: Final = "127.0.0.1:8001"
IDLE_S: Final = 300  # of the balancer
ADMIN: Final = "admin"
START_S_MAX: Final = 20.0
POLL_S: Final = 0.05

HAPROXY: Final = """
defaults
    mode http
    timeout connect 5s
    timeout client {idle_s}s
    timeout server {idle_s}s
    timeout tunnel {idle_s}s

frontend clients
    bind {balancer}:443 ssl crt {folder}/balancer.pem
    option forwardfor
    http-request set-header X-Forwarded-Proto https
    default_backend servers

backend servers
    source {balancer}
    balance leastconn
    server one {server}
"""
TLS_OF_VALKEY: Final = """
listen valkey
    mode tcp
    bind {valkey}:6379 ssl crt {folder}/valkey.pem
    timeout client 1h
    timeout server 1h
    server one unix@{folder}/valkey.sock
"""


@dataclass(frozen=True)
class Place:
    """Where things are."""

    folder: Path
    trusted: Path  # certificate of the authority that signed the others
    admin: Redis  # Valkey with all rights, past its TLS
    knows_setinfo: bool  # Redis 7.0 does not

    async def add_user(self, name: str, password: str, rights: str) -> None:
        """As ElastiCache makes a user from an access string."""
        known = [right for right in rights.split() if self.knows_setinfo or right != "+client|setinfo"]
        await self.admin.execute_command("ACL", "SETUSER", name, "resetkeys", f">{password}", *known)

    async def denials(self) -> list[str]:
        """What users were refused."""
        entries: Any = await self.admin.execute_command("ACL", "LOG")
        return [f"{one['username']}: {one['reason']} {one['object']}" for one in map(_as_text, entries)]


def _as_text(entry: Any) -> dict[str, str]:
    pairs = entry.items() if isinstance(entry, dict) else zip(entry[::2], entry[1::2], strict=True)
    return {_text(name): _text(part) for name, part in pairs}


def _text(part: Any) -> str:
    return part.decode() if isinstance(part, bytes) else str(part)


def lay_network(folder: Path, names: Mapping[str, str], *, with_redis: bool) -> Path:
    """Addresses, names (host -> address), certificates, and what HAProxy is told; whom to trust.

    Only in a network and mounts of its own (unshare).
    """
    for address in (BALANCER, VALKEY):
        subprocess.run(["ip", "address", "add", f"{address}/24", "dev", "lo"], check=True)
    hosts = folder / "hosts"
    lines = [f"{address} {host}\n" for host, address in names.items()]
    hosts.write_text("".join(["127.0.0.1 localhost\n", *lines]))
    subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
    authority = Authority.new()
    trusted = folder / "authority.pem"
    trusted.write_bytes(authority.pem)
    by_address = {address: host for host, address in names.items()}
    (folder / "balancer.pem").write_bytes(authority.certificate(by_address[BALANCER]))
    (folder / "valkey.pem").write_bytes(authority.certificate(by_address[VALKEY]))
    listeners = HAPROXY if with_redis else HAPROXY + TLS_OF_VALKEY
    configuration = listeners.format(
        folder=folder, idle_s=IDLE_S, balancer=BALANCER, valkey=VALKEY, server=SERVER
    )
    (folder / "haproxy.cfg").write_text(configuration)
    return trusted


@contextlib.asynccontextmanager
async def place(folder: Path, trusted: Path, *, with_redis: bool) -> AsyncGenerator[Place]:
    """Valkey, or Debian's redis-server, and HAProxy, in the network that `lay_network` has laid."""
    socket, certificate = folder / "valkey.sock", folder / "valkey.pem"
    command = [
        server_binary(),
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--save",
        "",
        "--dir",
        str(folder),
    ]
    command += ["--maxmemory-policy", "noeviction"]
    if with_redis:
        command[0] = "redis-server"
        command += ["--bind", VALKEY, "--tls-port", "6379", "--tls-auth-clients", "no"]
        command += ["--tls-cert-file", str(certificate), "--tls-key-file", str(certificate)]
        command += ["--tls-ca-cert-file", str(trusted)]
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(running(command))
        admin: Redis = Redis(unix_socket_path=str(socket))
        stack.push_async_callback(admin.aclose)
        await _until_it_answers(admin)
        await admin.execute_command("ACL", "SETUSER", ADMIN, "on", "nopass", "~*", "&*", "+@all")
        await admin.execute_command("AUTH", ADMIN, "any")
        await admin.execute_command("ACL", "SETUSER", "default", "off", "resetkeys", "resetchannels", "-@all")
        haproxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin") or "haproxy"
        await stack.enter_async_context(running([haproxy, "-db", "-f", str(folder / "haproxy.cfg")]))
        yield Place(folder, trusted, admin, knows_setinfo=not with_redis)


async def _until_it_answers(admin: Redis) -> None:
    async with asyncio.timeout(START_S_MAX):
        while True:
            with contextlib.suppress(RedisConnectionError):
                await admin.ping()
                return
            await asyncio.sleep(POLL_S)


@contextlib.asynccontextmanager
async def running(command: list[str]) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A process that ends with this."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


@dataclass(frozen=True)
class Authority:
    """A certificate authority for an hour."""

    key: ec.EllipticCurvePrivateKey
    certificate_itself: x509.Certificate

    @classmethod
    def new(cls) -> "Authority":
        """With a key of its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a drill")])
        made = (
            _builder(name, name, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(key, made)

    @property
    def pem(self) -> bytes:
        """What is to be trusted."""
        return self.certificate_itself.public_bytes(serialization.Encoding.PEM)

    def certificate(self, host: str) -> bytes:
        """Certificate and key of a host, as HAProxy reads them."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "drill")])
        made = (
            _builder(name, self.certificate_itself.subject, key)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return made.public_bytes(serialization.Encoding.PEM) + private


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
    )
