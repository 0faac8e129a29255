"""The first minutes on a GPU: `python -m benchmarks.device`; docs/device.md says what it does."""
