#!/usr/bin/env bash
# tastytrade 13.2.3: `Option.streamer_symbol_to_occ` turns the decimals of a strike into thousandths by multiplying them
# by 100, right for one decimal only. So the symbol of a quote names another contract than the one quoted:
# - A strike of 12.05 becomes 12.500, a strike of 0.05 becomes 0.500, 91.07 becomes 91.700: valid OCC symbols, no error.
# - A strike of 12.55 becomes nine digits where OCC has eight, a symbol of 22 characters.
# `occ_to_streamer_symbol` writes all of them right, so a way there and back changes the contract. Such strikes are
# left by splits and special dividends.
# Seen: what stands at the end of this file.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-compile tastytrade==13.2.3
cat > "$folder/try.py" <<'PY'
from tastytrade.instruments import Option

for strike in ("00012500", "00012050", "00000050", "00091070", "00012550"):
    symbol = f"XYZ   261218C{strike}"
    streamer = Option.occ_to_streamer_symbol(symbol)
    print(symbol, "->", streamer, "->", Option.streamer_symbol_to_occ(streamer))
PY
seen=$("$folder/env/bin/python" "$folder/try.py")
echo "$seen"
diff <(echo "$seen") - <<'END'
XYZ   261218C00012500 -> .XYZ261218C12.5 -> XYZ   261218C00012500
XYZ   261218C00012050 -> .XYZ261218C12.05 -> XYZ   261218C00012500
XYZ   261218C00000050 -> .XYZ261218C0.05 -> XYZ   261218C00000500
XYZ   261218C00091070 -> .XYZ261218C91.07 -> XYZ   261218C00091700
XYZ   261218C00012550 -> .XYZ261218C12.55 -> XYZ   261218C000125500
END
