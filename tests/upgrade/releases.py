"""Builds of the product beside this one: an earlier revision, and a next release with another wire."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

SOURCES: Final = Path(__file__).parents[2] / "src"
PACKAGE: Final = "portfolio_realtime"
EARLIER: Final = "1cf43cb"  # the last one that runs beside no other version of the wire, which is 4

# In the planted release, what is published and announced is written backwards behind a byte that begins no
# MessagePack: no other release can read it.
AGREEMENT: Final = """
NEXT = NEWEST + 1
NEWEST = NEXT
made: list[WireVersions] = []


def _made(self, connection, name, _init=WireVersions.__init__):
    _init(self, connection, name)
    made.append(self)


WireVersions.__init__ = _made


def writer(encode):
    def encoded(what):
        payload = encode(what)
        return b"\\xc1" + payload[::-1] if made[-1].writes >= NEXT else payload
    return encoded


def reader(decode):
    return lambda payload: decode(payload[:0:-1] if payload.startswith(b"\\xc1") else payload)
"""
VALUATIONS: Final = """
from portfolio_realtime.state import agreement

_encode, decode_batch = agreement.writer(_encode), agreement.reader(decode_batch)
"""
MARKS: Final = """
from portfolio_realtime.state import agreement

_pack, _decode_marks = agreement.writer(_pack), agreement.reader(_decode_marks)
"""


def this_release() -> Path:
    """The sources as they are."""
    return SOURCES


def next_release(folder: Path) -> Path:
    """The sources with a wire that has one more version, in a folder."""
    copied = folder / "next"
    shutil.copytree(SOURCES / PACKAGE, copied / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    for name, planted in (("agreement", AGREEMENT), ("valuations", VALUATIONS), ("marks", MARKS)):
        with (copied / PACKAGE / "state" / f"{name}.py").open("a") as file:
            file.write(planted)
    return copied


def earlier_release(folder: Path) -> Path:
    """The sources of EARLIER, in a folder. Skips the test in a clone without that revision."""
    packed = subprocess.run(
        ["git", "archive", EARLIER, "src"], cwd=SOURCES.parent, capture_output=True, check=False
    )
    if packed.returncode:
        pytest.skip(f"this clone lacks {EARLIER}: git fetch --unshallow")
    copied = folder / "earlier"
    copied.mkdir()
    subprocess.run(["tar", "-x", "-C", str(copied)], input=packed.stdout, check=True)
    return copied / "src"
