"""Shared by everything that calls Alpaca: credentials, OAuth tokens, the rate limit."""
