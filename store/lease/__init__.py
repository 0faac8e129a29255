"""Which process works on which stage: claims, and the heartbeats that keep them."""
