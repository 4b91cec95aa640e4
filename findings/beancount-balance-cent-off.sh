#!/usr/bin/env bash
# beancount 3.2.3: a balance assertion written in cents passes when the account is a cent off, in both directions.
# Its default tolerance is a whole unit of the last digit that the assertion shows, twice that of a transaction
# (half a unit), so "balance Assets:Broker 100.01 USD" holds where the postings add up to 100.00. Two cents off fail.
# Books that are checked against a broker's statement to the cent need a tolerance of their own ("~ 0.00").
# Seen: "100.00 0 errors", "100.01 0 errors", "99.99 0 errors", "100.02 1 errors", "100.01 ~ 0.00 1 errors".
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check beancount==3.2.3
cat > "$folder/try.py" <<'PY'
from beancount import loader

LEDGER = """
2026-01-01 open Assets:Broker USD
2026-01-01 open Equity:Deposits USD

2026-11-02 * "Deposit"
  Assets:Broker     100.00 USD
  Equity:Deposits  -100.00 USD

2026-11-03 balance Assets:Broker  {} USD
"""

for stated in ("100.00", "100.01", "99.99", "100.02", "100.01 ~ 0.00"):
    _entries, errors, _options = loader.load_string(LEDGER.format(stated))
    print(stated, len(errors), "errors")
PY
seen=$("$folder/env/bin/python" "$folder/try.py")
echo "$seen"
diff <(echo "$seen") - <<'END'
100.00 0 errors
100.01 0 errors
99.99 0 errors
100.02 1 errors
100.01 ~ 0.00 1 errors
END
