"""One client: the way in, its socket, what it is owed."""
