"""Pages in a real browser: the server's own, and those of frontend-app."""
