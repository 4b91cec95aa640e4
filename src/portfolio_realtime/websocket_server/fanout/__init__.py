"""From a publication to every client that watches the account."""
