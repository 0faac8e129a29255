"""The stages of a cell: what each reads, computes and writes to the store."""
