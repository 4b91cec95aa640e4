"""Who may see what: tokens, identities, entitlements, revocations, limits."""
