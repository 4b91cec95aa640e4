#!/usr/bin/env bash
# quantstats 0.0.86: the best (worst, average) month depends on how "month" is written, and on the time zone.
# - "month" and "quarter", the words of its own documentation, compound the Januaries of all years into one.
# - "M" and "Q", pandas' words until pandas 3, are no words here: they give the best day, without an error.
# - "ME" and "QE" are what one means. But returns with a time zone are first turned into UTC, so a day that begins at
#   midnight in Berlin or Tokyo falls back to the day before: what was gained on the first of a month counts for the
#   month before, on 1 January for the year before. Days of New York stay.
# Seen: what stands at the end of this file.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-compile quantstats==0.0.86 pandas==3.1.1
cat > "$folder/try.py" <<'PY'
import pandas
import quantstats

returns = pandas.Series(0.0, index=pandas.bdate_range("2024-01-01", "2025-12-31"))
for day in ("2024-01-08", "2024-01-09", "2025-01-08"):
    returns[day] = 0.10
for period in ("month", "quarter", "M", "Q", "ME", "QE"):
    print(f"best {period}: {quantstats.stats.best(returns, aggregate=period):.3f}")

first = pandas.Series(0.0, index=pandas.bdate_range("2024-12-02", "2025-01-31"))
first["2025-01-01"] = 0.10
for zone in (None, "America/New_York", "Europe/Berlin", "Asia/Tokyo"):
    months = quantstats.utils.aggregate_returns(first.tz_localize(zone), "ME")
    print(f"gained on 1 January, {zone}: year and month {tuple(map(int, months.idxmax()))}")
PY
seen=$("$folder/env/bin/python" "$folder/try.py")
echo "$seen"
diff <(echo "$seen") - <<'END'
best month: 0.331
best quarter: 0.331
best M: 0.100
best Q: 0.100
best ME: 0.210
best QE: 0.210
gained on 1 January, None: year and month (2025, 1)
gained on 1 January, America/New_York: year and month (2025, 1)
gained on 1 January, Europe/Berlin: year and month (2024, 12)
gained on 1 January, Asia/Tokyo: year and month (2024, 12)
END
