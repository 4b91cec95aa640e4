"""Tests of bookings that only a statement can decide."""
