"""The simulator is installable on its own: its wheel needs nothing of the product, nor more than it says."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "packages" / "alpaca-sim"
SOURCE = ROOT / "src" / "alpaca_sim"
WAIT_S_MAX = 100
# what a distribution is imported as, where that is another name; uvicorn[standard] brings uvloop
MODULES = {"exchange-calendars": {"exchange_calendars"}, "pyyaml": {"yaml"}, "uvicorn": {"uvicorn", "uvloop"}}
NOT_IMPORTED = {"websockets"}  # uvicorn imports it

IMPORT_ALL = """
import importlib, importlib.util, pkgutil, alpaca_sim
assert importlib.util.find_spec("portfolio_realtime") is None
names = [module.name for module in pkgutil.walk_packages(alpaca_sim.__path__, "alpaca_sim.")]
for name in names:
    importlib.import_module(name)
print(alpaca_sim.__file__, len(names))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built once."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True, timeout=WAIT_S_MAX)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    """The same files as in the source, and its own metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {
        path.relative_to(SOURCE.parent) for path in SOURCE.rglob("*") if path.suffix in (".py", ".typed")
    }
    assert names == {str(path) for path in files}


def test_it_runs_in_an_environment_without_the_product(wheel: Path, tmp_path: Path) -> None:
    """Installed without dependencies; only these are lent to it."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    install = ["install", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", str(wheel)]
    pip = [sys.executable, "-m", "pip", "--python", str(python), *install]
    subprocess.run(pip, check=True, capture_output=True, timeout=WAIT_S_MAX)
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": libraries}
    told = subprocess.run(
        [python, "-c", IMPORT_ALL], env=clean, check=True, capture_output=True, text=True, timeout=WAIT_S_MAX
    ).stdout.split()
    assert told[0].startswith(str(tmp_path)) and int(told[1]) > 30
    helped = subprocess.run(
        [python.with_name("alpaca-sim"), "--help"],
        env=clean,
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
    )
    assert helped.returncode == 0 and "--fault-seed" in helped.stdout


def test_every_import_is_a_declared_dependency_and_every_dependency_is_needed() -> None:
    """Read from the source, so that nothing comes in by way of something else."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[>=<]", requirement)[0] for requirement in project["dependencies"]}
    declared = {module for name in names for module in MODULES.get(name, {name})}
    imported: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"alpaca_sim"}
    assert foreign == declared - NOT_IMPORTED


def test_both_packages_have_the_same_version() -> None:
    """One source, one version."""
    versions = {
        tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]
        for folder in (ROOT, PACKAGE)
    }
    assert len(versions) == 1
