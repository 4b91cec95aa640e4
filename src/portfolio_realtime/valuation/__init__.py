"""What an account is worth: arrays in, exact cents out. Pure: no clock, no I/O, no logging."""
