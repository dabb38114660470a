"""python -m tritonhost: the command, also from a checkout that is not installed."""

import sys

from tritonhost.command import main

if __name__ == "__main__":
    sys.exit(main())
