"""Build the image without Docker: debootstrap makes the base, buildah does what the Dockerfile says."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
NAME: Final = "clera/portfolio-realtime:latest"
BASE_NAME: Final = "localhost/base:bookworm"
BASE_PACKAGES: Final = "python3,python3-venv,ca-certificates"
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# tool -> Debian package
TOOLS: Final = {
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "runc": "runc",
    "ip": "iproute2",
    "unshare": "util-linux",
}
STEP_S_MAX: Final = 900.0
# This machine's own, as the build finds them on it: authorities of a proxy, a package index
LENT: Final = (Path("/etc/ssl/certs"), Path("/etc/pip.conf"))


class ImageFailed(Exception):
    """It cannot be built or run here."""


@dataclass(frozen=True)
class Image:
    """A built image: its root file system, and what its Dockerfile says about running it."""

    root: Path
    config: dict[str, Any]  # as Docker has it: User, Env, Entrypoint, WorkingDir, Healthcheck

    @property
    def size_mib(self) -> int:
        """Of all files, the base included."""
        return int(_run("du", "-sm", str(self.root)).split()[0])


def missing_packages() -> list[str]:
    """The Debian packages that this machine lacks."""
    return [package for tool, package in TOOLS.items() if shutil.which(tool) is None]


def build(folder: Path) -> Image:
    """The image, built in a folder; a base that is there already is taken. Raises ImageFailed."""
    shutil.rmtree(folder / "images", ignore_errors=True)
    store = _Store(folder)
    if not (folder / "base").exists():
        _make_base(folder / "base")
    container = store.run("from", "scratch")
    store.run("add", "--quiet", container, str(folder / "base"), "/")
    store.run("config", "--env", f"PATH={PATH}", container)
    store.run("commit", "--quiet", "--rm", container, BASE_NAME)
    lent = [f"--volume={path}:{path}:ro" for path in LENT if path.exists()]
    arguments = ("--isolation=chroot", "--format=docker", f"--build-arg=BASE={BASE_NAME}", *lent)
    store.run("build", *arguments, "--tag", NAME, str(ROOT))
    config = json.loads(store.run("inspect", "--type=image", NAME))["Docker"]["config"]
    return Image(Path(store.run("mount", store.run("from", NAME))), config)


class _Store:
    """buildah with its images in a folder of ours; without copy on write, which not every machine allows."""

    def __init__(self, folder: Path) -> None:
        self._command = ("buildah", "--root", str(folder / "images"), "--runroot", str(folder / "run"))

    def run(self, *arguments: str) -> str:
        return _run(*self._command, "--storage-driver=vfs", *arguments)


def _make_base(folder: Path) -> None:
    """A Debian with Python as in python:3.11-slim: without bytecode. Raises ImageFailed."""
    made = folder.with_name("base.part")
    _run("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", str(made))
    for path in made.glob("usr/lib/python3*/**/*.pyc"):
        path.unlink()
    made.rename(folder)


def _run(*command: str) -> str:
    """What a command writes. Raises ImageFailed with the end of its errors."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_S_MAX, check=False)
    except subprocess.TimeoutExpired:
        raise ImageFailed(f"{command[0]} took longer than {STEP_S_MAX:.0f} s") from None
    if done.returncode:
        raise ImageFailed(f"{' '.join(command[:8])} …: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout.strip()
