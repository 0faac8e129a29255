"""Several processes that work on one unit in step, and what one alone does in their place."""
