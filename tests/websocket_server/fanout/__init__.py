"""Tests of `websocket_server/fanout`."""
