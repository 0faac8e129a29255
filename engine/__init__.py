"""The ablation engine: from a spec file to a store of results."""
