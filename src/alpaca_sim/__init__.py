"""A faithful Alpaca simulator. Its Decimal ledger is the oracle; it shares no code with the product."""
