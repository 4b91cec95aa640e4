"""Service 2: from Alpaca's market data to the mark of every symbol in the universe."""
