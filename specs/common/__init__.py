"""What all four packages share: words, numbers and small helpers. It imports the standard library alone."""
