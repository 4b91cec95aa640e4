"""Tests of the collector against the clocks of others."""
