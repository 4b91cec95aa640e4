"""The clients of the proofs: they must notice what is wrong, or the proofs are worth nothing."""
