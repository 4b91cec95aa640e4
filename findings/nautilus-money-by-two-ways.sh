#!/usr/bin/env bash
# nautilus_trader 1.221.0: the same half cent becomes two amounts, by the way in which Money is made. The text
# "0.125 USD" is rounded half to even (0.12), a float or a Decimal of the same value half away from zero (0.13); so
# cash read from a broker's JSON as text and cash computed differ by a cent, of either sign. 0.125 and 0.375 are exact
# in binary, so no error of floats is in it. 0.135 (odd cent before the half) is rounded up by both.
# Seen: "0.125 text 0.12 float 0.13 decimal 0.13", "-0.125 text -0.12 float -0.13 decimal -0.13",
# "0.375 text 0.38 float 0.38 decimal 0.38".
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check nautilus_trader==1.221.0 pandas==2.3.3
cat > "$folder/try.py" <<'PY'
from decimal import Decimal

from nautilus_trader.model.currencies import USD
from nautilus_trader.model.objects import Money

for text in ("0.125", "-0.125", "0.375"):
    ways = {
        "text": Money.from_str(f"{text} USD"),
        "float": Money(float(text), USD),
        "decimal": Money(Decimal(text), USD),
    }
    print(text, *(f"{way} {money.as_decimal()}" for way, money in ways.items()))
PY
seen=$("$folder/env/bin/python" "$folder/try.py")
echo "$seen"
diff <(echo "$seen") - <<'END'
0.125 text 0.12 float 0.13 decimal 0.13
-0.125 text -0.12 float -0.13 decimal -0.13
0.375 text 0.38 float 0.38 decimal 0.38
END
