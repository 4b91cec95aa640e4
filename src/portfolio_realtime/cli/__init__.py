"""The command line: `portfolio-realtime`."""
