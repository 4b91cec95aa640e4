"""Programs that others have written: those of the machine, and locked packages from npm in a cache."""

import contextlib
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NoReturn

import pytest

LOCKED: Final = Path(__file__).parent / "node"
CACHE: Final = Path.home() / ".cache" / "portfolio-realtime-interoperability"
NPM_S_MAX: Final = 120


def lacking(what: str) -> NoReturn:
    """What a test needs is not there: the test is skipped, in CI it fails."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def need(program: str) -> str:
    """The program; without it the test is skipped, in CI it fails."""
    found = shutil.which(program)
    if found is None:
        lacking(f"no {program}: apt-get install {program}")
    return found


def node_modules() -> Path:
    """Where the packages of `node/package-lock.json` are, installed once; several tests may ask at once."""
    files = [LOCKED / "package.json", LOCKED / "package-lock.json"]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    installed = CACHE / digest
    if not installed.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=CACHE) as fresh:
            for file in files:
                shutil.copy(file, fresh)
            _install(fresh)
            with contextlib.suppress(OSError):  # another was faster
                Path(fresh).rename(installed)
            Path(fresh).mkdir(exist_ok=True)  # for its own removal
    return installed / "node_modules"


def _install(folder: str) -> None:
    command = (need("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder)
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=NPM_S_MAX, cwd=folder)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or b"").decode(errors="replace")
        lacking(f"the packages of {LOCKED.name}/package-lock.json cannot be had from npm: {said[-500:]}")
