"""Service 1: reads every account at Alpaca and writes what it holds into the shared state."""
