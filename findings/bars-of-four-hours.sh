#!/usr/bin/env bash
# Bars of four hours of a New York day, made by three engines. pandas 3.1.1 (resample) and polars 2.1.0
# (group_by_dynamic) begin them at 00:00, 04:00, 08:00 of New York all year. DuckDB 2.0.1 (time_bucket on TIMESTAMPTZ)
# does not, and differs with the season:
# - With `SET TimeZone = 'America/New_York'`: 07:00 in winter, 08:00 in summer. date_trunc obeys the session's time
#   zone, time_bucket counts from a moment in UTC. So its days, too, begin at 19:00 or 20:00 of the day before.
# - With the time zone as third argument: 08:00 in winter, 09:00 in summer. It counts elapsed hours from a midnight in
#   January.
# What agrees with the others: time_bucket on the local time without a zone (`t::TIMESTAMP`).
# Seen: what stands at the end of this file.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  pandas==3.1.1 polars==2.1.0 duckdb==2.0.1 pytz==2026.6 tzdata==2026.6
cat > "$folder/try.py" <<'PY'
from datetime import datetime
from zoneinfo import ZoneInfo

import duckdb
import pandas
import polars

ZONE = "America/New_York"
duckdb.sql(f"SET TimeZone = '{ZONE}'")


def begin(at, every, words):
    """When the bar that holds the moment `at` begins, by each engine. `every` suits pandas and polars."""
    moment = at.replace(tzinfo=ZoneInfo(ZONE))
    one = pandas.Series([1], index=pandas.DatetimeIndex([moment])).resample(every[0]).sum().index[0]
    rows = polars.DataFrame({"t": [moment]}).with_columns(polars.col("t").dt.convert_time_zone(ZONE))
    two = rows.group_by_dynamic("t", every=every[1]).agg()["t"][0]
    buckets = [f"time_bucket(INTERVAL '{words}', {what})" for what in ("t", f"t, '{ZONE}'", "t::TIMESTAMP")]
    asked = ", ".join(f"strftime({bucket}, '%m-%d %H:%M')" for bucket in buckets)
    (three,) = duckdb.sql(f"SELECT {asked} FROM (SELECT TIMESTAMPTZ '{moment.isoformat()}' t)").fetchall()
    print(f"{words}, {at:%m-%d %H:%M}: {one:%m-%d %H:%M}, {two:%m-%d %H:%M}; {', '.join(three)}")


print("of, at: pandas, polars; DuckDB with SET TimeZone, with an argument, on local time")
for at in (datetime(2026, 1, 5, 10), datetime(2026, 7, 6, 10)):
    begin(at, ("4h", "4h"), "4 hours")
    begin(at, ("1D", "1d"), "1 day")
PY
seen=$("$folder/env/bin/python" "$folder/try.py")
printf '%s\n' "$seen"
[ "$seen" = "of, at: pandas, polars; DuckDB with SET TimeZone, with an argument, on local time
4 hours, 01-05 10:00: 01-05 08:00, 01-05 08:00; 01-05 07:00, 01-05 08:00, 01-05 08:00
1 day, 01-05 10:00: 01-05 00:00, 01-05 00:00; 01-04 19:00, 01-05 00:00, 01-05 00:00
4 hours, 07-06 10:00: 07-06 08:00, 07-06 08:00; 07-06 08:00, 07-06 09:00, 07-06 08:00
1 day, 07-06 10:00: 07-06 00:00, 07-06 00:00; 07-05 20:00, 07-06 00:00, 07-06 00:00" ]
