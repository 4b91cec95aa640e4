#!/usr/bin/env bash
# empyrical-reloaded 0.5.9 ("weekly") and quantstats 0.0.86 ("W") compound returns by week under the calendar's year and
# the week of ISO 8601. The last days of December often belong by ISO to week 1 of the next year, and so are
# compounded with the first days of January of their own year, 52 weeks before: +10 % on 2 January and +10 % on
# 30 December 2025 make one week of +21 %, the best of the year, where no week was better than 10 %. All weeks
# compounded are right, so a check of the total does not show it. 2018, 2019, 2024 and 2025 have such trading days.
# pandas 3.1.1 (resample "W-FRI" and "W-SUN") keeps them apart.
# Seen: what stands at the end of this file.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-compile \
  empyrical-reloaded==0.5.9 quantstats==0.0.86 pandas==3.1.1
cat > "$folder/try.py" <<'PY'
import empyrical
import pandas
import quantstats

returns = pandas.Series(0.0, index=pandas.bdate_range("2025-01-01", "2025-12-31"))
returns["2025-01-02"] = returns["2025-12-30"] = 0.10
weeks = {
    "empyrical": empyrical.aggregate_returns(returns, "weekly"),
    "quantstats": quantstats.utils.aggregate_returns(returns, "W"),
    "pandas W-FRI": (1 + returns).resample("W-FRI").prod() - 1,
    "pandas W-SUN": (1 + returns).resample("W-SUN").prod() - 1,
}
for name, week in weeks.items():
    print(f"{name}: {len(week)} weeks, the best {week.max():.2f}, together {(1 + week).prod() - 1:.2f}")
print(f"quantstats.stats.best: {quantstats.stats.best(returns, aggregate='W'):.2f}")
PY
seen=$("$folder/env/bin/python" "$folder/try.py")
echo "$seen"
diff <(echo "$seen") - <<'END'
empyrical: 52 weeks, the best 0.21, together 0.21
quantstats: 52 weeks, the best 0.21, together 0.21
pandas W-FRI: 53 weeks, the best 0.10, together 0.21
pandas W-SUN: 53 weeks, the best 0.10, together 0.21
quantstats.stats.best: 0.21
END
