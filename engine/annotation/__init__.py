"""`engine annotate`: ratings and explanations for unrated conversations, from an ensemble of models."""
