"""Tests of `websocket_server/http_api`."""
