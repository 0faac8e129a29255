"""Base models: loading them, their lens, their devices, and what runs them forward."""
