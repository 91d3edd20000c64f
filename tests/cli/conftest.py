"""Fixtures of the command line's tests (see driver.py for the helpers)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from driver import copy_of, fork, hfi, loop, quick, recipe  # noqa: E402, F401
