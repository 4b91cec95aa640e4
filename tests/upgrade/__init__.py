"""Processes of two releases side by side: nothing goes wrong while the old ones are replaced, and back."""
