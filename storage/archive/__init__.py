"""Layers: tar archives read, applied to a tree, and made from two trees. Runs in worker processes (worker.py)."""
