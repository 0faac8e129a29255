"""The command `engine`: one module for each group of commands, and their tables and progress bars."""
