"""pip's output, from standard input, in few lines: `pip install … 2>&1 | python progress.py REQUIREMENTS`.

A counter on a terminal; else a line for every ten packages. Every TICK_S it says what takes so long. Not awk:
Debian's reads a pipe in blocks, and then says nothing for minutes.
"""

import os
import re
import select
import sys
from pathlib import Path

TICK_S = 10
QUIET_PACKAGES = 10
TROUBLE = re.compile(r"ERROR|error|WARNING: .*(hash|yanked)")


class Progress:
    """What pip has done so far, of `total` packages."""

    def __init__(self, total: int, *, is_terminal: bool) -> None:
        self._total = total
        self._is_terminal = is_terminal
        self._count = 0
        self._work = "making the environment"
        self._waited_s = 0

    def tick(self) -> None:
        """TICK_S have gone."""
        self._waited_s += TICK_S
        self._show(f"{self._work}, {self._waited_s} s")

    def line(self, line: str) -> None:
        """Take in a line of pip's."""
        if line.startswith("Ignoring "):  # for another system or Python
            self._total -= 1
        elif line.startswith(("Collecting ", "Processing ")):
            self._count += 1
            self._work = f"fetching package {self._count} of {self._total}"
            if self._is_terminal or self._count % QUIET_PACKAGES == 0:
                self._show(f"{self._work}: {line.split()[1].rpartition('/')[2]}")
        elif line.startswith("Installing collected packages"):
            self._work = f"unpacking {self._count} packages"
            self._show(f"{self._work}; this takes as long again ...", is_last=True)
        elif line.startswith("Successfully installed"):
            self._show("installed", is_last=True)
        elif TROUBLE.match(line):
            print(line, flush=True)

    def _show(self, text: str, *, is_last: bool = False) -> None:
        is_kept = is_last or not self._is_terminal
        beginning = "\r\033[K" if self._is_terminal else ""
        print(f"{beginning}  {text}", end="\n" if is_kept else "", flush=True)


def main() -> None:
    """Read until pip has ended."""
    total = Path(sys.argv[1]).read_text().count("==")
    progress, rest = Progress(total, is_terminal=sys.stdout.isatty()), b""
    while True:
        if not select.select([0], [], [], TICK_S)[0]:
            progress.tick()
            continue
        part = os.read(0, 65536)
        if not part:
            break
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            progress.line(line.decode(errors="replace"))


if __name__ == "__main__":
    main()
