"""One container under runc, which Docker uses as well, confined as compose.yaml says."""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.image.build import Image, ImageFailed

END_S_MAX: Final = 20.0
ASK_S_MAX: Final = 30.0
CPU_PERIOD_US: Final = 100_000
MIB: Final = 1024 * 1024
TMPFS: Final = {"type": "tmpfs", "source": "tmpfs"}
DEVICES: Final = {"destination": "/dev", **TMPFS, "options": ["nosuid", "mode=755"]}
PROCESSES: Final = {"destination": "/proc", "type": "proc", "source": "proc"}

# What a container says about itself; a place where a file can be made is a hole.
PROBE: Final = """
import json, os, re, tempfile
PLACES = ("/", "/app", "/opt/venv", "/etc", "/var/tmp", "/dev")
def can_write(place):
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError:
        return False
    return True
status = open("/proc/1/status").read()
print(json.dumps({
    "user": os.getuid(),
    "capabilities": int(re.search("CapBnd:\\\\s+(\\\\w+)", status)[1], 16),
    "has_no_new_privileges": "NoNewPrivs:\\t1" in status,
    "writable": [place for place in PLACES if can_write(place)],
    "left": os.listdir("/tmp"),
}))
"""


@dataclass(frozen=True)
class Confined:
    """What was seen of a container."""

    name: str
    user: int
    capabilities: int
    has_no_new_privileges: bool
    writable: list[str]  # places outside of /tmp where a file can be made
    left: list[str]  # files that it has made in /tmp
    is_healthy: bool
    memory_mib_max: int
    exit_code: int
    ended_s: float

    @property
    def is_clean(self) -> bool:
        """Is it what a container should be?"""
        wrong = self.capabilities or self.writable or self.left or self.exit_code or self.user == 0
        return self.has_no_new_privileges and self.is_healthy and not wrong


class Container:
    """One container; `service` is confined as that service of compose.yaml."""

    def __init__(self, image: Image, folder: Path, name: str, service: Mapping[str, Any]) -> None:
        self.name = name
        self._image = image
        self._folder = folder / name
        self._service = service
        self._runc = ("runc", "--root", str(folder / "runc"))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, environment: Mapping[str, str], command: Sequence[str] = ()) -> None:
        """Start the image's entry point with a command, or without one."""
        self._folder.mkdir(parents=True)
        specification = specify(self._image, self._service, environment, command)
        (self._folder / "config.json").write_text(json.dumps(specification))
        with (self._folder / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(*self._runc, "run", "--bundle", str(self._folder), self.name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        """What it has written."""
        return (self._folder / "log").read_text()

    async def stop(self) -> Confined:
        """Look at it, then ask it to end. Raises ImageFailed when it is not there, or stays."""
        assert self._process is not None
        seen = json.loads((await self._ask("exec", self.name, "python", "-c", PROBE))[1])
        health, _ = await self._ask("exec", self.name, *self._image.config["Healthcheck"]["Test"][1:])
        memory = json.loads((await self._ask("events", "--stats", self.name))[1])["data"]["memory"]["usage"]
        asked_s = time.monotonic()
        await self._ask("kill", self.name, self._image.config["StopSignal"])
        try:
            code = await asyncio.wait_for(self._process.wait(), END_S_MAX)
        except TimeoutError:
            raise ImageFailed(f"{self.name} did not end within {END_S_MAX:.0f} s") from None
        ended_s = round(time.monotonic() - asked_s, 2)
        return Confined(
            self.name,
            **seen,
            is_healthy=health == 0,
            memory_mib_max=memory["max"] // MIB,
            exit_code=code,
            ended_s=ended_s,
        )

    async def delete(self) -> None:
        """Leave nothing of it behind, whatever has happened."""
        with contextlib.suppress(ImageFailed):
            await self._ask("delete", "--force", self.name)

    async def _ask(self, *arguments: str) -> tuple[int, bytes]:
        """runc's exit code, and what it writes. Raises ImageFailed when it says nothing in time."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self._runc, *arguments, stdout=pipe, stderr=pipe)
        try:
            written, _ = await asyncio.wait_for(process.communicate(), ASK_S_MAX)
        except TimeoutError:
            process.kill()
            raise ImageFailed(f"runc {arguments[0]} {self.name}: no answer in {ASK_S_MAX:.0f} s") from None
        assert process.returncode is not None
        return process.returncode, written


def specify(
    image: Image, service: Mapping[str, Any], environment: Mapping[str, str], command: Sequence[str]
) -> dict[str, Any]:
    """What runc is told: the image's own words, and the service's of compose.yaml."""
    user, group = map(int, service["user"].split(":"))
    capabilities: list[str] = [] if service["cap_drop"] == ["ALL"] else ["CAP_CHOWN"]
    memory = int(service["mem_limit"].removesuffix("m")) * MIB
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(image.root), "readonly": service["read_only"]},
        "process": {
            "args": [*image.config["Entrypoint"], *command],
            "cwd": image.config["WorkingDir"],
            "env": [*image.config["Env"], *(f"{name}={value}" for name, value in environment.items())],
            "user": {"uid": user, "gid": group},
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": "no-new-privileges:true" in service["security_opt"],
        },
        "mounts": [PROCESSES, DEVICES, *map(_mounted, service["tmpfs"])],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")],
            "resources": {
                "memory": {"limit": memory},
                "pids": {"limit": service["pids_limit"]},
                "cpu": {"quota": int(service["cpus"] * CPU_PERIOD_US), "period": CPU_PERIOD_US},
            },
        },
    }


def _mounted(tmpfs: str) -> dict[str, Any]:
    place, _, options = tmpfs.partition(":")
    return {"destination": place, **TMPFS, "options": options.split(",")}
