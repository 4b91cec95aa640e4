"""The levers of the simulator: what a test or a person may change while it runs."""
