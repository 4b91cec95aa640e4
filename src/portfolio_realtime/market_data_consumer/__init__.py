"""Market data, from Alpaca's stream and snapshots to the mark price of every symbol of the universe."""
