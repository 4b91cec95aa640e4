#!/usr/bin/env bash
# alpaca-py 0.44.0: one activity of a type that Alpaca documents and the SDK does not list makes the whole list
# unreadable. `BrokerClient.get_account_activities` raises pydantic's ValidationError for OPCA (option corporate
# action) and FOPT, both in Alpaca's Broker API reference, and the deposit beside it is lost with it. The same
# type as a key of `cashflow` loses a whole portfolio history. Who follows cash by activities through the SDK
# stops at the first such row. `raw_data=True` does not help: the activities are validated all the same.
# Seen: "deposit alone: ['CSD']", "with OPCA: ValidationError", "with OPCA, raw: ValidationError",
# "history with FOPT: ValidationError".
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check alpaca-py==0.44.0 pydantic==2.14.4
cat > "$folder/try.py" <<'PY'
import json, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from alpaca.broker.client import BrokerClient
from alpaca.broker.requests import GetAccountActivitiesRequest
from alpaca.trading.models import PortfolioHistory
from pydantic import ValidationError

ROW = {"account_id": "0d18ae51-3c94-4511-b209-101e1666416b", "date": "2026-11-27", "net_amount": "100",
       "description": "", "status": "executed"}
ROWS = [{**ROW, "id": "20261127000000000::a", "activity_type": "CSD"},
        {**ROW, "id": "20261127000000000::b", "activity_type": "OPCA", "net_amount": "0"}]


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(ROWS[: self.server.rows]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"


def outcome(call):
    try:
        return call()
    except ValidationError as error:
        return type(error).__name__


def activities(rows, raw=False):
    server.rows = rows
    client = BrokerClient("key", "secret", url_override=url, raw_data=raw)
    found = client.get_account_activities(GetAccountActivitiesRequest(), max_items_limit=rows)
    return [row.activity_type.value for row in found]


history = {"timestamp": [1795972289], "equity": [1.0], "profit_loss": [0.0], "profit_loss_pct": [0.0],
           "base_value": 1.0, "timeframe": "1D", "cashflow": {"FOPT": [0.0]}}
print("deposit alone:", outcome(lambda: activities(1)))
print("with OPCA:", outcome(lambda: activities(2)))
print("with OPCA, raw:", outcome(lambda: activities(2, raw=True)))
print("history with FOPT:", outcome(lambda: PortfolioHistory(**history)))
PY
seen=$("$folder/env/bin/python" "$folder/try.py")
echo "$seen"
[ "$seen" = "deposit alone: ['CSD']
with OPCA: ValidationError
with OPCA, raw: ValidationError
history with FOPT: ValidationError" ] || { echo "this has changed"; exit 1; }
