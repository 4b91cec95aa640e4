"""The market, the accounts and their exact ledger. Nothing here imports a web framework."""
