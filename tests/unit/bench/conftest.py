"""The router's own bench, for the targets that are tested against it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "router"))
