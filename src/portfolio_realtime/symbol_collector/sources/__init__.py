"""Sources of accounts: Alpaca's Broker API and Trading API, parsed into our terms."""
