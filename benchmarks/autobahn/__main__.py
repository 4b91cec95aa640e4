"""Autobahn's testsuite against our end of a WebSocket: `python -m benchmarks.autobahn --python python2.7`.

It needs Python 2.7, which Debian has no more, and installs Autobahn for it in a cache. The groups are framing
(1), pings and pongs (2), reserved bits (3), opcodes (4), fragments (5), UTF-8 (6), closing (7) and automatic
fragments (10); not 9, which measures, nor 12 and 13, compression, which we decline. The verdicts are printed.
OK, INFORMATIONAL and NON-STRICT (right, but later than it could be) are good; any other, if it is not one of
KNOWN, makes the exit code 1.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.autobahn.echo import echoing

GROUPS: Final = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
AGENT: Final = "portfolio-realtime"
CACHE: Final = Path.home() / ".cache" / "portfolio-realtime-benchmarks" / "autobahn"
REQUIREMENTS: Final = Path(__file__).parent / "requirements.txt"
GOOD: Final = frozenset({"OK", "INFORMATIONAL", "NON-STRICT"})
KNOWN: Final = {
    "7.1.5": "a close in the midst of a fragmented message is answered with 1002, not with its own code: an "
    "endpoint 'typically' echoes it (RFC 6455 §5.5.1)",
}
INSTALL_S_MAX: Final = 900
RUN_S_MAX: Final = 3600
START: Final = (
    "import site, sys; site.addsitedir(sys.argv[1]); sys.path.insert(0, sys.argv.pop(1)); "
    "from autobahntestsuite.wstest import run; run()"
)


class Missing(Exception):
    """It cannot be run here."""


def installed(python: str) -> Path:
    """Where Autobahn is, installed once. Raises Missing."""
    if shutil.which(python) is None:
        raise Missing(f"no {python}: Autobahn's testsuite needs Python 2.7; name one by --python")
    if not (CACHE / "autobahntestsuite").exists():
        command = (
            *(python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-deps"),
            *("--target", str(CACHE), "-r", str(REQUIREMENTS)),
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S_MAX, check=False)
        if done.returncode != 0:
            raise Missing(f"Autobahn's testsuite cannot be installed: {done.stderr[-2000:]}")
    return CACHE


async def verdicts(python: str, autobahn: Path, cases: list[str]) -> dict[str, dict[str, Any]]:
    """What Autobahn says to each case: `behavior`, and `behaviorClose` of how it ended. Raises Missing."""
    with TemporaryDirectory(prefix="autobahn-") as folder:
        async with echoing() as url:
            spec = {
                "outdir": folder,
                "servers": [{"agent": AGENT, "url": url}],
                "cases": cases,
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
            file = Path(folder) / "spec.json"
            file.write_text(json.dumps(spec))
            process = await asyncio.create_subprocess_exec(
                *(python, "-c", START, str(autobahn), "-m", "fuzzingclient", "-s", str(file)),
                stdout=asyncio.subprocess.DEVNULL,
                cwd=folder,
            )
            try:
                async with asyncio.timeout(RUN_S_MAX):
                    if await process.wait() != 0:
                        raise Missing(f"{python} cannot run Autobahn's testsuite; the reason is above")
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        return json.loads((Path(folder) / "index.json").read_text())[AGENT]


def main() -> None:
    """Test, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default="python2.7", help="a Python 2.7")
    parser.add_argument("--cases", nargs="+", default=list(GROUPS), help="such as 5.* or 7.1.1")
    asked = parser.parse_args()
    try:
        found = asyncio.run(verdicts(asked.python, installed(asked.python), asked.cases))
    except Missing as missing:
        sys.exit(str(missing))
    bad = {
        case: verdict
        for case, verdict in found.items()
        if verdict["behavior"] not in GOOD or verdict["behaviorClose"] not in GOOD
    }
    counts = Counter(verdict["behavior"] for verdict in found.values())
    known = {case: KNOWN[case] for case in bad.keys() & KNOWN.keys()}
    bad = {case: verdict for case, verdict in bad.items() if case not in known}
    later = sorted(case for case, verdict in found.items() if verdict["behavior"] == "NON-STRICT")
    told = {"cases": len(found), **counts, "later": later, "known": known, "bad": bad}
    print(json.dumps(told, indent=2, sort_keys=True))
    sys.exit(1 if bad or not found else 0)


if __name__ == "__main__":
    main()
