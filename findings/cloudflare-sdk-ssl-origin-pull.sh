#!/usr/bin/env bash
# cloudflare 5.9.0 (Cloudflare's official SDK for Python): the zone setting `ssl` may be `origin_pull` ("Strict
# (SSL-Only Origin Pull)"), and the SDK's own type of the setting, cloudflare.types.zones.ssl.SSL, has it. The
# type of the answer to reading or changing a setting (SettingGetResponse, SettingEditResponse; member ZonesSSL2)
# does not: a client with strict validation cannot read the settings of such a zone, and says that none of some
# sixty types fits. Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile cloudflare==5.9.0
"$folder/venv/bin/python" - <<'PYTHON'
import cloudflare
import pydantic
from cloudflare.types.zones import SettingGetResponse
from cloudflare.types.zones.ssl import SSL

answer = {"id": "ssl", "value": "origin_pull", "editable": True}
assert cloudflare.__version__ == "5.9.0"
pydantic.TypeAdapter(SSL).validate_python(answer)
print("SSL takes origin_pull")
try:
    pydantic.TypeAdapter(SettingGetResponse).validate_python(answer)
except pydantic.ValidationError as error:
    (told,) = [one["msg"] for one in error.errors() if one["loc"][:2] == ("ZonesSSL2", "value")]
    print("SettingGetResponse refuses it:", told)
    assert told == "Input should be 'off', 'flexible', 'full' or 'strict'"
else:
    raise SystemExit("it is mended: the answer's type takes origin_pull")
PYTHON
