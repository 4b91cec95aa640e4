"""Real processes, two of each, and seeded nemeses: what their clients are shown meanwhile and afterwards."""
