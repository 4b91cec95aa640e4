"""Tests of `websocket_server/access`."""
