"""What is known of each account: its statements and bookings, summed up exactly. No network."""
