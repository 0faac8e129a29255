"""What the types of a spec's tables cannot say."""
