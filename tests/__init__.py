"""Everything that must hold: journey, faults, and a mirror of the package."""
