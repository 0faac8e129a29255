"""The reference of all keys (docs/spec.md) and the JSON Schema, written from the typed spec."""
