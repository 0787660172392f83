"""Where snapshots lie on disk: a module for each snapshotter, and their contract (interface.py)."""
