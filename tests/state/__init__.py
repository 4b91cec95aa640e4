"""The shared state, on a real Valkey."""
