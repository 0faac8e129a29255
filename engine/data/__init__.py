"""Rated examples: where they come from, how they are read and checked, and how they are split."""
