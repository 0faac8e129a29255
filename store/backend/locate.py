"""From a path or a URL to the folder or bucket that it names."""

from __future__ import annotations

from pathlib import Path

from store.backend.location import Place, Root, is_url


def place_of(root: Root) -> Place:
    """Return the place of this path or URL; StoreError for a URL that cannot be a store's."""
    if isinstance(root, Place):
        return root
    if isinstance(root, str) and is_url(root):
        from store.backend.bucket import bucket

        return bucket(root)
    from store.backend.folder import Folder

    return Folder(Path(root))
