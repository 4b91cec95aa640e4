"""What several test modules use: worlds to test in, values, clients."""
