"""Proof on the running system: a whole system in one call, clients that check every frame, the oracle."""
