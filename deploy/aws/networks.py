"""Cloudflare's networks, from the file that deploy/cloudflare.py keeps up to date."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NETWORKS: Final = Path(__file__).resolve().parent.parent / "cloudflare-networks.json"


@dataclass(frozen=True)
class Networks:
    """Networks as `address/bits`."""

    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]


def cloudflare_networks() -> Networks:
    """Where Cloudflare's requests come from."""
    found = json.loads(NETWORKS.read_text())
    return Networks(tuple(found["ipv4"]), tuple(found["ipv6"]))
