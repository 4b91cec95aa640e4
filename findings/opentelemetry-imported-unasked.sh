#!/usr/bin/env bash
# redis-py 8.1.0 and FastAPI 0.165.0 import OpenTelemetry although nobody has switched it on.
# redis-py: `import redis` imports `opentelemetry.sdk.metrics` wherever the SDK is installed, by
# redis/observability/providers.py, which redis/maint_notifications.py imports. Without the SDK: nothing.
# FastAPI: it depends on `opentelemetry-api`, and `import fastapi` imports it, SDK or not.
# So "OpenTelemetry is not imported while it is off" can be promised of the tracing SDK and the exporter only,
# and a test that looks for "opentelemetry" in sys.modules fails for a program that never asked for it.
# Seen: "redis, no SDK: []", "fastapi, no SDK: ['api']", "redis, SDK: ['api', 'sdk.metrics']".
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
pip=("$folder/env/bin/pip" install --quiet --disable-pip-version-check)
ask() {
  "$folder/env/bin/python" -c "
import $1, sys
parts = {'api': 'opentelemetry.trace', 'sdk.metrics': 'opentelemetry.sdk.metrics', 'sdk.trace': 'opentelemetry.sdk.trace'}
print('$1, $2:', [name for name, module in parts.items() if module in sys.modules])"
}
"${pip[@]}" redis==8.1.0 fastapi==0.165.0
seen=$(ask redis "no SDK"; ask fastapi "no SDK")
"${pip[@]}" opentelemetry-sdk==1.45.2
seen+=$'\n'$(ask redis SDK)
echo "$seen"
[ "$seen" = "redis, no SDK: []
fastapi, no SDK: ['api']
redis, SDK: ['api', 'sdk.metrics']" ] || { echo "this has changed"; exit 1; }
