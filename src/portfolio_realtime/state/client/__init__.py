"""A connection to one server: set up by the client library, read and written by ourselves."""
