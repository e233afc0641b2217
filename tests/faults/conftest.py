"""Lets the tests of this folder import its modules and the daemon of the functional tests, as `make crash` does."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "functional"), str(HERE.parent / "fuzz")]
