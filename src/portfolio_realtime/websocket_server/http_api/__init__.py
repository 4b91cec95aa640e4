"""The HTTP routes and their documents."""
