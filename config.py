"""Read by pyinfra before the inventory: what a run is given is checked, and refused, while nothing is connected yet.

A file of its own because pyinfra reads this one first, and because where the inventory is missing or empty nothing
else of ours runs: pyinfra 3.10 takes that for a success.
"""

import os
import sys

from pyinfra import config

# pyinfra 3.10 sets it (pyinfra_cli/main.py), and all modules of this project would be compiled again in each run
sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))

from operations import inputs  # noqa: E402

config.REQUIRE_PYINFRA_VERSION = ">=3.10,<4"

inputs.watch()
