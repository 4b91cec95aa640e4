"""The container image, built and run without Docker."""
