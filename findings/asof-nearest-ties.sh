#!/usr/bin/env bash
# As-of joins put a quote beside each trade. pandas 3.1.1 (merge_asof) and polars 2.1.0 (join_asof) agree on "backward"
# and "forward". On "nearest" they do not:
# - A trade exactly between two quotes: pandas takes the quote before it, polars the quote after it.
# - Three quotes at one time, all later than the trade: pandas takes the first of them, polars the last.
# The first also is a look into the future, which a back-test must not have. Times of whole seconds or milliseconds make
# such ties ordinary. Both read the same rows, sorted by time.
# Seen: "between: pandas before, polars after", "three at once, later: pandas a, polars c",
# "three at once, the same time: pandas c, polars c", "forward: pandas a, polars a".
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 polars==2.1.0
cat > "$folder/try.py" <<'PY'
from datetime import datetime, timedelta

import pandas
import polars

START = datetime(2026, 1, 5, 14, 30)


def join(what, trade_s, quotes, direction):
    """`trade_s`: seconds after START; `quotes`: (seconds after START, name), in order of time."""
    trades = {"t": [START + timedelta(seconds=trade_s)]}
    named = {"t": [START + timedelta(seconds=at_s) for at_s, _ in quotes], "quote": [name for _, name in quotes]}
    first = pandas.merge_asof(pandas.DataFrame(trades), pandas.DataFrame(named), on="t", direction=direction)
    second = polars.DataFrame(trades).join_asof(polars.DataFrame(named), on="t", strategy=direction)
    print(f"{what}: pandas {first['quote'][0]}, polars {second['quote'][0]}")


three = [(0, "a"), (0, "b"), (0, "c")]
join("between", 5, [(0, "before"), (10, "after")], "nearest")
join("three at once, later", -1, three, "nearest")
join("three at once, the same time", 0, three, "nearest")
join("forward", -1, three, "forward")
PY
seen=$("$folder/env/bin/python" "$folder/try.py")
printf '%s\n' "$seen"
[ "$seen" = "between: pandas before, polars after
three at once, later: pandas a, polars c
three at once, the same time: pandas c, polars c
forward: pandas a, polars a" ]
