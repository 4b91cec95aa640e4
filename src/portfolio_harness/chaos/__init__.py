"""Chaos: two real processes of every service are disturbed by seeded nemeses while clients check them."""
