"""Tests of `portfolio_realtime.symbol_collector`."""
