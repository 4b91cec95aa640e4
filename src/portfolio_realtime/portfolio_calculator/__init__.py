"""The portfolio calculator: owns shards of accounts, values those that are watched, publishes."""
