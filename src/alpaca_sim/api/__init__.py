"""Alpaca's HTTP routes and WebSocket streams."""
