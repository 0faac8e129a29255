"""The typed settings: one attrs class for each TOML table."""
