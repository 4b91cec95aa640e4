"""A revision of this repository beside this one, in an environment of its own."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from portfolio_realtime.errors import SettingsError

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / ".compare"  # what has been checked out and installed is kept there
REQUIREMENTS: Final = ("requirements/run.txt", "requirements/runtime.txt")  # the first that a revision has
SLOWER: Final = Path(__file__).resolve().parent / "slower"
WORKING_TREE: Final = "."


@dataclass(frozen=True)
class Revision:
    """One build: its sources and the Python that has just what it needs to run."""

    name: str  # as asked for
    commit: str  # "" for the files as they are
    source: Path
    python: Path

    def environment(self, slower_ratio: float = 0.0) -> dict[str, str]:
        """What its processes need to import it; with a ratio each uses so much more processor time."""
        if not slower_ratio:
            return {"PYTHONPATH": str(self.source)}
        return {"PYTHONPATH": f"{SLOWER}:{self.source}", "COMPARE_SLOWER_RATIO": str(slower_ratio)}


def prepared(name: str) -> Revision:
    """Check a revision out and install what it locks; "." is the working tree.

    The work is kept, so a second call is quick. Raises SettingsError.
    """
    if name == WORKING_TREE:
        return Revision(name, "", ROOT / "src", _python(ROOT, FOLDER / "working-tree"))
    commit = _commit(name)
    folder = FOLDER / commit[:12]
    source = folder / "checkout"
    if not source.exists():
        partial = folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", str(partial)], input=packed.stdout, check=True)
        partial.rename(source)
    return Revision(name, commit, source / "src", _python(source, folder))


def _commit(name: str) -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        raise SettingsError(f"--rev {name}: git knows no such revision; git log --oneline lists them")
    return told.stdout.strip()


def _python(checkout: Path, folder: Path) -> Path:
    """The Python of an environment with what `checkout` locks to run, made again when that changes."""
    locked = next((checkout / name for name in REQUIREMENTS if (checkout / name).exists()), None)
    if locked is None:
        raise SettingsError(f"{checkout} has none of {', '.join(REQUIREMENTS)}: it cannot be installed")
    environment, installed = folder / "environment", folder / "installed.txt"
    python = environment / "bin" / "python"
    if installed.exists() and installed.read_text() == locked.read_text():
        return python
    print(f"installing what {locked.relative_to(checkout)} locks for {folder.name} ...", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "--no-deps", "-r", str(locked)], check=True)
    installed.write_text(locked.read_text())
    return python
