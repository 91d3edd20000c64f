"""The recipe in training/ is not installed: its tests import it from the repository."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
