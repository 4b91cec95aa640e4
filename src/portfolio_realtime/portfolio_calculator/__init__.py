"""Service 3: owns shards of accounts, values those that are watched, and publishes the values."""
