"""The engine's scheduling on simulated GPUs that fail, by a clock of events (docs/simulation.md)."""
