"""Where accounts come from: Alpaca's Broker API and its Trading API, parsed into our own terms."""
