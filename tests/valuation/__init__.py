"""Valuation: exact cents, whoever is watched, whenever due."""
