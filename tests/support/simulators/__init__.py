"""Simulated Alpacas, and how tests sign in at one."""
