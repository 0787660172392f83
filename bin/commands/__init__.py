"""One module per group of commands: each parses, calls the store, and prints."""
