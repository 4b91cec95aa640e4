"""Measurements, side by side with peers in one run. Ratios travel between machines; milliseconds do not."""
