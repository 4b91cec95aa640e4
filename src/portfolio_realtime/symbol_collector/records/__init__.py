"""The record of each account: its statements and bookings, summed exactly. No network."""
