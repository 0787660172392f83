"""Measured on the reference: which identifiers, labels and masks are good."""

from __future__ import annotations

import json
from pathlib import Path

VECTORS = Path(__file__).parent.parent / "vectors"
IDENTIFIERS = json.loads((VECTORS / "identifiers.json").read_text())
SIZES = json.loads((VECTORS / "label_sizes.json").read_text())
MASKS = json.loads((VECTORS / "masks.json").read_text())
