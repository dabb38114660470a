"""Show what a profile would do, without a host.

python -m operations.plan profiles
python -m operations.plan explain mixtral-8x7b
python -m operations.plan explain gpt2-medium --gpus "NVIDIA H200:1"
    python -m operations.plan migrate llama-2-7b > inventories/models/llama-2-7b-llmapi.toml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from operations.plan.errors import PlanError
from operations.plan.explain import explain
from operations.plan.inventory import read_group_data
from operations.plan.migrate import migrated
from operations.plan.profiles import load_profile, profile_names

GROUP_DATA = Path(__file__).resolve().parents[2] / "inventories" / "group_data"


def main(arguments: list[str] | None = None) -> int:
    """The command; 2 for a profile that cannot be planned."""
    parser = argparse.ArgumentParser(prog="python -m operations.plan", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("profiles", help="the models at hand")
    shown = commands.add_parser("explain", help="every step and value of one profile")
    shown.add_argument("profile")
    shown.add_argument("--gpus", help="NAME:COUNT; default: what the profile was made for")
    moved = commands.add_parser("migrate", help="the LLM-API profile equivalent to an engine profile")
    moved.add_argument("profile")
    given = parser.parse_args(arguments)
    try:
        if given.command == "profiles":
            for name in profile_names():
                print(f"{name:20} {load_profile(name).summary}")
        elif given.command == "migrate":
            print(migrated(given.profile), end="")
        else:
            print(explain(given.profile, read_group_data(GROUP_DATA / "all.py"), given.gpus), end="")
    except PlanError as error:
        print(f"tritonhost: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
