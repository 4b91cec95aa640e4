"""The market, the accounts and their exact ledger; it knows no web framework."""
