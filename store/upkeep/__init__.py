"""Looking after a store: verification, mending, garbage."""
