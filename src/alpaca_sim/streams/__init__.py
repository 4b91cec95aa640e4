"""Stream messages, market-data subscriptions and open event streams, without sockets."""
