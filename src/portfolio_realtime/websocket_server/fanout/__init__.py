"""From a publication to every client that subscribes to the account."""
