"""The control routes under `/_sim`: exact values, and changes by hand while the simulator runs."""
