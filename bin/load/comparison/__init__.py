"""Two results: what changed, and whether it is more than noise."""

from .compare import Comparison, compare, describe, exit_code

__all__ = ["Comparison", "compare", "describe", "exit_code"]
