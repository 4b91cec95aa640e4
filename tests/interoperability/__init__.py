"""Foreign clients and the letter of RFC 6455, against the running server."""
