"""Whole services as processes: against a simulated Alpaca, on a real Valkey."""
