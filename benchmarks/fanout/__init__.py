"""What it costs to deliver a message to a browser: this server, the floor in C, and its peers, in one run."""
