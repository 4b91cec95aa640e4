"""Tests of `portfolio_realtime.broker`."""
