"""A simulated Alpaca for tests and development. It shares no code with the product.

Its `Decimal` ledger (`core/ledger.py`) is the reference that tests compare the product with.
"""
