"""Alpaca's HTTP routes and WebSocket streams, over the core."""
