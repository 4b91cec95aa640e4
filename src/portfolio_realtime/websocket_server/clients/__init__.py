"""One client: its handshake, its socket, and what is to be sent to it."""
