"""Tests of the simulator: real sockets, exact decimals, Alpaca's own schemas and SDK."""
