"""TOML text to typed settings, with every mistake named by file, line and key."""
