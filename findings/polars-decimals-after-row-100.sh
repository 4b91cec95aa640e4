#!/usr/bin/env bash
# polars 2.1.0: a table made of rows (dicts or tuples) of Python's Decimal gets its scale from the first 100 rows, and
# every later amount is rounded to that scale without an error, although `strict` is on by default: after 100 prices in
# cents 0.0049 becomes 0.00, after 100 quantities of whole shares 1.5 becomes 2, be it a Decimal or a float. After 100
# rows without a price (None) it raises an error, as it should. The same amounts as a column are read to the end and
# kept. What helps: infer_schema_length=None, or a schema. So a book of positions is right with 100 rows and wrong
# with 101.
# Seen: what stands at the end of this file.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-compile polars==2.1.0
cat > "$folder/try.py" <<'PY'
from decimal import Decimal

import polars

CENTS, LATER = Decimal("12.34"), Decimal("0.0049")


def last(frame):
    return f"{frame['price'][-1]} {frame['price'].dtype}"


def rows(*prices):
    return [{"price": price} for price in prices]


print("99 rows before, dicts:", last(polars.DataFrame(rows(*[CENTS] * 99, LATER))))
print("100 rows before, dicts:", last(polars.DataFrame(rows(*[CENTS] * 100, LATER))))
tuples = [(CENTS,)] * 100 + [(LATER,)]
print("100 rows before, tuples:", last(polars.DataFrame(tuples, schema=["price"], orient="row")))
print("100 rows before, from_dicts:", last(polars.from_dicts(rows(*[CENTS] * 100, LATER))))
print("100 whole shares before:", last(polars.DataFrame(rows(*[Decimal(10)] * 100, Decimal("1.5")))))
print("100 whole shares before, then a float:", last(polars.DataFrame(rows(*[Decimal(10)] * 100, 1.5))))
print("as a column:", last(polars.DataFrame({"price": [CENTS] * 100 + [LATER]})))
print("all rows inferred:", last(polars.DataFrame(rows(*[CENTS] * 100, LATER), infer_schema_length=None)))
try:
    polars.DataFrame(rows(*[None] * 100, LATER))
except polars.exceptions.ComputeError as error:
    print("100 unpriced before:", type(error).__name__)
PY
seen=$("$folder/env/bin/python" "$folder/try.py")
echo "$seen"
diff <(echo "$seen") - <<'END'
99 rows before, dicts: 0.0049 Decimal(precision=38, scale=4)
100 rows before, dicts: 0.00 Decimal(precision=38, scale=2)
100 rows before, tuples: 0.00 Decimal(precision=38, scale=2)
100 rows before, from_dicts: 0.00 Decimal(precision=38, scale=2)
100 whole shares before: 2 Decimal(precision=38, scale=0)
100 whole shares before, then a float: 2 Decimal(precision=38, scale=0)
as a column: 0.0049 Decimal(precision=38, scale=4)
all rows inferred: 0.0049 Decimal(precision=38, scale=4)
100 unpriced before: ComputeError
END
