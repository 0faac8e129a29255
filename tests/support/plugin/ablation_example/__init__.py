"""An example of a plug-in: one entry point of every kind, each in a few lines."""
