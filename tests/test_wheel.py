"""The wheel alone works: installed beside nothing but its declared dependencies, it proves a demo."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from portfolio_realtime import __version__

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("portfolio_realtime", "portfolio_harness", "alpaca_sim")
BUILD_S_MAX = 120
PROOF_S_MAX = 200


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built once from the source."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=BUILD_S_MAX)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_code_scripts_and_page(wheel: Path) -> None:
    """Every file under src that is not Python is needed at run time, too."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {
        str(path.relative_to(ROOT / "src"))
        for package in PACKAGES
        for path in (ROOT / "src" / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == sources


def test_the_wheel_proves_a_demo_with_its_declared_dependencies_alone(wheel: Path, tmp_path: Path) -> None:
    """An empty environment gets the packages of requirements/runtime.txt, by links, and the wheel."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    (libraries,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    _lend(libraries)
    install = ["install", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", str(wheel)]
    pip = [sys.executable, "-m", "pip", "--python", str(python), *install]
    subprocess.run(pip, check=True, capture_output=True, timeout=BUILD_S_MAX)

    words = ["demo", "--port", "0", "--accounts", "5", "--symbols", "10", "--duration", "3"]
    done = subprocess.run(
        [python.with_name("portfolio-realtime"), *words],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PROOF_S_MAX,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    proof = json.loads(done.stdout)
    assert (proof["accounts"], proof["compared"], proof["mismatches"]) == (5, 5, 0)


def _lend(libraries: Path) -> None:
    """Link each package that requirements/runtime.txt locks into an empty site-packages."""
    locked = re.findall(
        r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE
    )
    for name in locked:
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        tops = {
            file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")
        }
        for top in tops:
            source, link = Path(str(distribution.locate_file(top))), libraries / top
            if source.exists() and not link.exists():
                link.symlink_to(source)


def test_the_version_is_said_once(wheel: Path) -> None:
    """Package, wheel and simulator agree."""
    assert f"-{__version__}-" in wheel.name
