"""The wire to clients: message types, WebSocket frames, HTTP errors."""
