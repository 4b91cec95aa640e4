"""Service 1: reads all accounts from Alpaca and writes their records to the shared state."""
