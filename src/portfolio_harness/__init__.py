"""Drives and checks a whole running system: demo, load test, fault trials, chaos, trading weeks.

Its clients check every frame, and the oracle compares their figures with the simulator's ledger.
"""
