#!/usr/bin/env bash
# duckdb 2.0.1 and polars 2.1.0: trade times with nanoseconds (RFC 3339 text, as market data APIs send them) are cut
# to microseconds when types are found by themselves, without a word: DuckDB from CSV and from JSON, polars from CSV
# (try_parse_dates). Two trades of one microsecond then have one time, and sorting by time no longer keeps which was
# last. From the same file pandas 2.3.3 and pyarrow 26.0.1 keep all nine digits, and DuckDB keeps them from Parquet.
# Seen: duckdb csv, duckdb json and polars csv: 1 distinct time of 2; duckdb parquet, pandas csv, pyarrow csv: 2 of 2.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.1 polars==2.1.0 pandas==2.3.3 pyarrow==26.0.1 pytz==2025.2
cat > "$folder/try.py" <<'PY'
import os
import sys

import duckdb
import pandas
import polars
import pyarrow
import pyarrow.csv
import pyarrow.parquet

os.chdir(sys.argv[1])
TIMES = ["2026-11-27T14:30:00.123456789Z", "2026-11-27T14:30:00.123456100Z"]
with open("trades.csv", "w") as file:
    file.writelines(f"{line}\n" for line in ["t", *TIMES])
with open("trades.json", "w") as file:
    file.writelines(f'{{"t":"{time}"}}\n' for time in TIMES)
table = pyarrow.csv.read_csv("trades.csv")
pyarrow.parquet.write_table(table, "trades.parquet")

for kind in ("csv", "json", "parquet"):
    rows = duckdb.sql(f"SELECT epoch_ns(t) FROM 'trades.{kind}'").fetchall()
    print("duckdb", kind, len(set(rows)))
print("polars csv", polars.read_csv("trades.csv", try_parse_dates=True)["t"].n_unique())
print("pandas csv", pandas.read_csv("trades.csv", parse_dates=["t"])["t"].nunique())
print("pyarrow csv", len(table["t"].unique()))
PY
seen=$("$folder/env/bin/python" "$folder/try.py" "$folder")
echo "$seen"
diff <(echo "$seen") - <<'END'
duckdb csv 1
duckdb json 1
duckdb parquet 2
polars csv 1
pandas csv 2
pyarrow csv 2
END
