#!/usr/bin/env bash
# ministack 1.5.33: the Ref of an AWS::SecretsManager::Secret made by CloudFormation gives the secret's name; AWS gives
# its ARN ("When you pass the logical ID of this resource to the intrinsic Ref function, Ref returns the ARN of the
# secret": CloudFormation template reference). So `ARN:KEY::` of an ECS task definition is no ARN there.
# Seen on 2026-11-29: {"Output": "app/db", "describe_secret": "arn:aws:secretsmanager:...:secret:app/db-..."}
set -euo pipefail
folder=$(mktemp -d)
trap '[[ -z ${emulator:-} ]] || kill "$emulator" 2>/dev/null; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ministack==1.5.33 2>/dev/null
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
BIND_HOST=127.0.0.1 GATEWAY_PORT=$port "$folder/venv/bin/ministack" >/dev/null 2>&1 &
emulator=$!
PORT=$port "$folder/venv/bin/python" - <<'PYTHON'
import json, os, sys, time
import botocore.exceptions, botocore.session

session = botocore.session.Session()
session.set_credentials("test", "test")
url = f"http://127.0.0.1:{os.environ['PORT']}"
client = lambda name: session.create_client(name, region_name="eu-north-1", endpoint_url=url)
for _ in range(300):
    try:
        client("sts").get_caller_identity()
        break
    except botocore.exceptions.BotoCoreError:
        time.sleep(0.1)
template = {
    "Resources": {"Secret": {"Type": "AWS::SecretsManager::Secret", "Properties": {"Name": "app/db"}}},
    "Outputs": {"Secret": {"Value": {"Ref": "Secret"}}},
}
formation = client("cloudformation")
formation.create_stack(StackName="app", TemplateBody=json.dumps(template))
while (stack := formation.describe_stacks(StackName="app")["Stacks"][0])["StackStatus"].endswith("IN_PROGRESS"):
    time.sleep(0.1)
output = stack["Outputs"][0]["OutputValue"]
arn = client("secretsmanager").describe_secret(SecretId="app/db")["ARN"]
print(json.dumps({"Output": output, "describe_secret": arn}))
sys.exit(0 if output == "app/db" and arn.startswith("arn:") else "the behaviour has changed")
PYTHON
