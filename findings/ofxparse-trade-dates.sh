#!/usr/bin/env bash
# ofxparse 0.21: a trade date with a zone, as OFX writes it (20261130200000[-5:EST], eight in the evening in New York),
# becomes a datetime of UTC without a zone, 2026-12-01 01:00, while a date without time and zone (20261130) stays
# midnight of its own day. One statement then holds both kinds, not to be told apart: the evening's trade falls into
# the next day, month and, on 31 December, tax year. ofxtools 1.1.1 turns the same field into the same moment, but
# marks it as UTC, so that it can be turned back.
# Seen: "ofxparse 2026-12-01 01:00:00 None", "ofxparse 2026-11-30 00:00:00 None",
# "ofxtools 2026-12-01 01:00:00 UTC".
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check ofxparse==0.21 ofxtools==1.1.1
cat > "$folder/try.py" <<'PY'
import io

from ofxparse import OfxParser
from ofxtools.Parser import OFXTree

HEADER = "\n".join(
    "OFXHEADER:100 DATA:OFXSGML VERSION:102 SECURITY:NONE ENCODING:USASCII CHARSET:1252"
    " COMPRESSION:NONE OLDFILEUID:NONE NEWFILEUID:NONE".split()
)
TRADE = """<BUYSTOCK><INVBUY><INVTRAN><FITID>{id}<DTTRADE>{date}</INVTRAN>
<SECID><UNIQUEID>037833100<UNIQUEIDTYPE>CUSIP</SECID><UNITS>10<UNITPRICE>100<COMMISSION>0<TOTAL>-1000
<SUBACCTSEC>CASH<SUBACCTFUND>CASH</INVBUY><BUYTYPE>BUY</BUYSTOCK>"""
STATEMENT = f"""{HEADER}

<OFX><SIGNONMSGSRSV1><SONRS><STATUS><CODE>0<SEVERITY>INFO</STATUS><DTSERVER>20261130235900<LANGUAGE>ENG</SONRS>
</SIGNONMSGSRSV1><INVSTMTMSGSRSV1><INVSTMTTRNRS><TRNUID>1<STATUS><CODE>0<SEVERITY>INFO</STATUS>
<INVSTMTRS><DTASOF>20261130235900[-5:EST]<CURDEF>USD<INVACCTFROM><BROKERID>broker.test<ACCTID>1</INVACCTFROM>
<INVTRANLIST><DTSTART>20261101<DTEND>20261130
{TRADE.format(id=1, date="20261130200000[-5:EST]")}
{TRADE.format(id=2, date="20261130")}
</INVTRANLIST></INVSTMTRS></INVSTMTTRNRS></INVSTMTMSGSRSV1></OFX>""".encode()

for trade in OfxParser.parse(io.BytesIO(STATEMENT)).account.statement.transactions:
    print("ofxparse", trade.tradeDate, trade.tradeDate.tzname())
tree = OFXTree()
tree.parse(io.BytesIO(STATEMENT))
trade = tree.convert().invstmtmsgsrsv1[0].invstmtrs.invtranlist[0].dttrade
print("ofxtools", trade.replace(tzinfo=None), trade.tzname())
PY
seen=$("$folder/env/bin/python" "$folder/try.py")
echo "$seen"
diff <(echo "$seen") - <<'END'
ofxparse 2026-12-01 01:00:00 None
ofxparse 2026-11-30 00:00:00 None
ofxtools 2026-12-01 01:00:00 UTC
END
