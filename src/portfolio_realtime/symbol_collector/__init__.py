"""Alpaca's Broker API: its REST and event stream, parsed into our terms at the edge."""
