"""The arithmetic of an account's value: arrays in, exact cents out. Pure: no clock, no I/O, no logging."""
