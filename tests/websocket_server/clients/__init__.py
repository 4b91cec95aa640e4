"""Tests of `websocket_server/clients`."""
