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


def seen(root: Root) -> Place:
    """Return a place for one look at it: of one far away, each thing is asked for once."""
    place = place_of(root)
    if not place.distant or place is not place.now():
        return place
    from store.backend.seen_bucket import seen_bucket

    return seen_bucket(place)
