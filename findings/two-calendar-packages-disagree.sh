#!/usr/bin/env bash
# exchange_calendars 4.13.2 and pandas_market_calendars 5.5.0 agree on every day and every close of New York,
# London, Toronto and Xetra from 2018 to 2025. Elsewhere they do not:
# - Hong Kong: two days are a session in exchange_calendars only and four in pandas_market_calendars only, and 17 half
#   days end at 12:00 in the first and at 16:00 in the second.
# - CME equity futures: the close differs on every single day, 17:00 Chicago in the first and 16:00 in the second, and
#   four Good Fridays are a session in the second only.
# Who cuts data by the one and joins it with a schedule of the other loses rows without an error.
# Seen: what stands at the end of this file; + is a session in exchange_calendars only, - in the second only.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  exchange_calendars==4.13.2 pandas_market_calendars==5.5.0 pandas==3.1.1
cat > "$folder/try.py" <<'PY'
import exchange_calendars
import pandas_market_calendars

FIRST, LAST = "2018-01-02", "2025-11-28"
PAIRS = {
    "New York": ("XNYS", "NYSE"),
    "London": ("XLON", "LSE"),
    "Toronto": ("XTSE", "TSX"),
    "Xetra": ("XETR", "XETR"),
    "Hong Kong": ("XHKG", "HKEX"),
    "CME": ("CMES", "CME_Equity"),
}
for place, (one, other) in PAIRS.items():
    calendar = exchange_calendars.get_calendar(one, start="2018-01-01", end="2025-11-30")
    schedule = pandas_market_calendars.get_calendar(other).schedule(FIRST, LAST)
    sessions = calendar.sessions_in_range(FIRST, LAST)
    alone = [f"+{day.date()}" for day in sessions.difference(schedule.index)]
    alone += [f"-{day.date()}" for day in schedule.index.difference(sessions)]
    both = sessions.intersection(schedule.index)
    closes = [day for day in both if calendar.session_close(day) != schedule.loc[day, "market_close"]]
    print(f"{place} {len(alone)} days, {len(closes)} closes:", *alone)
    if closes:
        day = closes[0]
        shown = [
            close.tz_convert(calendar.tz).strftime("%H:%M")
            for close in (calendar.session_close(day), schedule.loc[day, "market_close"])
        ]
        print(f"  {day.date()} {shown[0]} and {shown[1]}")
PY
"$folder/env/bin/python" "$folder/try.py" | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
New York 0 days, 0 closes:
London 0 days, 0 closes:
Toronto 0 days, 0 closes:
Xetra 0 days, 0 closes:
Hong Kong 6 days, 17 closes: +2023-09-01 +2023-09-08 -2020-10-13 -2021-04-06 -2021-10-13 -2024-09-06
  2018-02-15 12:00 and 16:00
CME 4 days, 1981 closes: -2021-04-02 -2023-04-07 -2024-03-29 -2025-04-18
  2018-01-02 17:00 and 16:00
SEEN
