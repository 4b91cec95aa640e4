"""What a second calculator, a second server and two more primaries cost, side by side."""
