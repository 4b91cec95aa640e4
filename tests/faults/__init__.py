"""Real processes are killed, with clients connected: everything heals, nothing needs a hand."""
