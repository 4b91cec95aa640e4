"""Autobahn's conformance tests of RFC 6455 against our end of a WebSocket."""
