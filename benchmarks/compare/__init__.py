"""Two revisions side by side: the same load on both in turn, ratios pair by pair."""
