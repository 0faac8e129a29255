"""Numbers from which on something counts, each with its one default."""

POWER = 0.8
"""The power that a design should have."""

SATURATED = 0.95
"""Top probability from which on a layer has decided; a final layer that stays there is saturated."""

# Failure signatures (`[signatures]`, `store.analysis.detect_failures`).
MISMATCH = 0.2
TRAIN_GAP = 0.15
SET_GAP = 0.15
CONFUSION = 0.3
COLLAPSE = 0.95
COLLAPSED_ENTROPY = 0.05  # nat
TEMPLATES = 0.5

FEWEST_POINTS = 3
"""Examples from which on a measure of residual streams' geometry is a number."""

FEWEST_SIMILAR = 5
"""Examples from which on the similarity of two models' residual streams is one: unbiased HSIC needs four, and
its jackknife leaves one out."""
