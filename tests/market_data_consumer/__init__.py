"""Market data: from messages to marks."""
