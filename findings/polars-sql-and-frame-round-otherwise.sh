#!/usr/bin/env bash
# polars 2.1.0: one engine, one column of decimals, two answers, by whether SQL or the methods of a frame ask.
# - Rounding to cents: `round(2)` of the frame takes half to even, ROUND(price, 2) in SQL half away from zero; SQL's own
#   CAST to DECIMAL(9,2) half to even again. So 1.005 is 1.00, 1.01 and 1.00. Floats are rounded alike by both.
# - Dividing: the frame keeps the scale of the column, so amounts in cents divided give cents, and three equal positions
#   have the weights 0.33, 0.33, 0.33. SQL gives eight decimals.
# Who moves a query from the one to the other changes the figures, and no type or warning says so for the rounding.
# Seen: what stands at the end of this file.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-compile polars==2.1.0
cat > "$folder/try.py" <<'PY'
from decimal import Decimal

import polars

amounts = [Decimal(text) for text in ("0.125", "-0.125", "1.005", "0.135")]
frame = polars.DataFrame({"amount": amounts, "approximate": [0.125, -0.125, 0.375, 0.625]})
by_sql = frame.sql("SELECT ROUND(amount, 2) a, ROUND(approximate, 2) f, CAST(amount AS DECIMAL(9, 2)) c FROM self")
print("amount; frame's round, SQL's ROUND, SQL's CAST")
for amount, one, two, three in zip(amounts, frame["amount"].round(2), by_sql["a"], by_sql["c"], strict=True):
    print(f"{amount}; {one:.2f}, {two:.2f}, {three}")
print("floats alike:", frame["approximate"].round(2).to_list() == by_sql["f"].to_list())

values = polars.DataFrame({"value": [Decimal("100.00")] * 3})
weights = {
    "frame": values["value"] / values["value"].sum(),
    "SQL": values.sql("SELECT value / 300.00 AS weight FROM self")["weight"],
}
for way, weight in weights.items():
    print(f"weight by {way}: {weight[0]}, together {weight.sum()}")
PY
seen=$("$folder/env/bin/python" "$folder/try.py")
echo "$seen"
diff <(echo "$seen") - <<'END'
amount; frame's round, SQL's ROUND, SQL's CAST
0.125; 0.12, 0.13, 0.12
-0.125; -0.12, -0.13, -0.12
1.005; 1.00, 1.01, 1.00
0.135; 0.14, 0.14, 0.14
floats alike: True
weight by frame: 0.33, together 0.99
weight by SQL: 0.33333333, together 0.99999999
END
