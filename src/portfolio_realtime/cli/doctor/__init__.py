"""`portfolio-realtime doctor`: checks all that the services need, and names a remedy for each problem."""
