"""`engine publish`: an adapter with its model card, for a folder or the hub."""
