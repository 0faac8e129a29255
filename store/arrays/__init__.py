"""How values lie on disk: families of variables, their Zarr groups, chunks and coordinates."""
