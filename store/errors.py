"""The one error class of the store."""


class StoreError(Exception):
    """A store cannot be read or written as asked; the message names the file or the entry at fault."""
