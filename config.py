"""Read by pyinfra before the inventory: what a run is given is checked, and refused, while nothing is connected yet.

A file of its own because pyinfra reads this one first, and because where the inventory is missing or empty nothing
else of ours runs: pyinfra 3.10 takes that for a success.
"""

from pyinfra import config

from operations import inputs

config.REQUIRE_PYINFRA_VERSION = ">=3.10,<4"

inputs.watch()
