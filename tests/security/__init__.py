"""Section E of the field's security items, one test each, with its number in the name."""
