"""The whole system through everything that can go wrong, and through time."""
