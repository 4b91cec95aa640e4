#!/usr/bin/env bash
# setproctitle 1.3.8 on Linux: a process that empties os.environ before its first call of setproctitle keeps its old
# name for ever, without an error: neither `ps` nor the kernel's short name changes, and getproctitle() is "". So it
# is also when the same variables are put back at once, and when the module was imported before. What helps is to
# call getproctitle() once before. Adding or changing a variable does no harm. Who forks workers and gives each an
# environment of its own has workers that all have one name.
# Seen: "untouched: renamed", "one added: renamed", "cleared: not renamed, getproctitle() ''",
# "cleared and put back: not renamed, getproctitle() ''", "imported, then cleared: not renamed, getproctitle() ''",
# "asked, then cleared: renamed".
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check setproctitle==1.3.8
cat > "$folder/try.py" <<'PY'
import os
import sys
from pathlib import Path

way = sys.argv[1]
before = dict(os.environ)
if way == "one added":
    os.environ["ONE_MORE"] = "1"
if way.startswith("imported"):
    import setproctitle
if way.startswith("asked"):
    from setproctitle import getproctitle

    getproctitle()
if "cleared" in way:
    os.environ.clear()
if way.endswith("put back"):
    os.environ.update(before)

from setproctitle import getproctitle, setproctitle

setproctitle("worker 7")
line = Path("/proc/self/cmdline").read_bytes().rstrip(b"\0")
short = Path("/proc/self/comm").read_text().strip()
assert (line == b"worker 7") == (short == "worker 7") == (getproctitle() == "worker 7")
print(f"{way}: renamed" if line == b"worker 7" else f"{way}: not renamed, getproctitle() {getproctitle()!r}")
PY
seen=$(for way in "untouched" "one added" "cleared" "cleared and put back" "imported, then cleared" "asked, then cleared"; do
  "$folder/env/bin/python" "$folder/try.py" "$way"
done)
echo "$seen"
diff - <(echo "$seen") <<'SEEN'
untouched: renamed
one added: renamed
cleared: not renamed, getproctitle() ''
cleared and put back: not renamed, getproctitle() ''
imported, then cleared: not renamed, getproctitle() ''
asked, then cleared: renamed
SEEN
