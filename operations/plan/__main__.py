"""Show what a profile would do, without a host.

python -m operations.plan profiles
python -m operations.plan matrix
python -m operations.plan check my-model.toml
python -m operations.plan explain mixtral-8x7b
python -m operations.plan explain gpt2-medium --release 25.05 --gpu "NVIDIA H200" --gpus 1 --json
    python -m operations.plan migrate llama-2-7b > inventories/models/llama-2-7b-llmapi.toml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from operations.plan.errors import PlanError
from operations.plan.explain import as_json, explained, matrix, planned, text
from operations.plan.inventory import read_group_data
from operations.plan.migrate import migrated
from operations.plan.profiles import load_profile, profile_in, profile_names

GROUP_DATA = Path(__file__).resolve().parents[2] / "inventories" / "group_data"


def main(arguments: list[str] | None = None) -> int:
    """The command; 2 for a profile that is not valid or cannot be planned."""
    parser = argparse.ArgumentParser(prog="python -m operations.plan", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("profiles", help="the models at hand")
    commands.add_parser("matrix", help="which versions belong together, an image a line")
    checked = commands.add_parser("check", help="whether a file is a valid profile")
    checked.add_argument("file", type=Path)
    shown = commands.add_parser("explain", help="every step and value of one profile")
    shown.add_argument("profile")
    shown.add_argument("--release", help="YY.MM in the place of the profile's")
    shown.add_argument("--gpu", help="a GPU's name, as nvidia-smi prints it; default: the profile's own")
    shown.add_argument("--gpus", help="how many of them, or NAME:COUNT; default: the profile's own")
    shown.add_argument("--json", action="store_true", help="for a program")
    moved = commands.add_parser("migrate", help="the LLM-API profile equivalent to an engine profile")
    moved.add_argument("profile")
    given = parser.parse_args(arguments)
    try:
        if given.command == "profiles":
            for name in profile_names():
                print(f"{name:20} {load_profile(name).summary}")
        elif given.command == "matrix":
            print(matrix(), end="")
        elif given.command == "check":
            profile = profile_in(given.file, given.file.name)
            # planned for its own hardware, or for the largest GPU known: the versions of its flags show only then
            gpus = None if profile.hardware else f"NVIDIA H200:{profile.gpus_needed}"
            planned(given.file.stem, profile, read_group_data(GROUP_DATA / "all.py"), gpus)
            print(f"{given.file.name}: valid, kind {profile.kind}: {profile.summary}")
        elif given.command == "migrate":
            print(migrated(given.profile), end="")
        else:
            gpus = f"{given.gpu}:{given.gpus or 1}" if given.gpu else given.gpus
            data = read_group_data(GROUP_DATA / "all.py")
            release = explained(given.profile, data, gpus, given.release)
            print(as_json(release) if given.json else text(release), end="")
    except PlanError as error:
        print(f"tritonhost: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
