"""What all speak with Alpaca's REST: credentials, tokens, the rate limit."""
