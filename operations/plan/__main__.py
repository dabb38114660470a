"""Show what a profile would do, without a host.

python -m operations.plan profiles
python -m operations.plan matrix
python -m operations.plan check my-model.toml
python -m operations.plan explain mixtral-8x7b
python -m operations.plan explain gpt2-medium --release 25.05 --gpu "NVIDIA H200" --gpus 1 --json
python -m operations.plan migrate llama-2-7b > inventories/models/llama-2-7b-llmapi.toml
python -m operations.plan schema profile > files/schema/profile.json
python -m operations.plan models
python -m operations.plan new meta-llama/Llama-3.1-8B-Instruct --shape BM.GPU4.8
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from operations.plan.errors import PlanError, nearest
from operations.plan.explain import as_json, explained, matrix, matrix_rows, planned, text
from operations.plan.inventory.hosts import read_group_data
from operations.plan.model_table import model_rows, model_table
from operations.plan.paths import PROJECT
from operations.plan.profile.migrate import migrated
from operations.plan.profile.profiles import load_profile, profile_in, profile_names

GROUP_DATA = PROJECT / "inventories" / "group_data"
PROGRAM = "python -m operations.plan"


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The command's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    listed = commands.add_parser("profiles", help="the available models")
    listed.add_argument("--json", action="store_true", help="for a program")
    versions = commands.add_parser("matrix", help="which versions belong together, one image per line")
    versions.add_argument("--json", action="store_true", help="for a program")
    checked = commands.add_parser("check", help="whether a file is a valid profile")
    checked.add_argument("file", type=Path)
    shown = commands.add_parser("explain", help="every step and value of one profile")
    shown.add_argument("profile")
    shown.add_argument("--release", help="YY.MM instead of the profile's")
    shown.add_argument("--gpu", help="a GPU's name, as nvidia-smi prints it; default: the profile's own")
    shown.add_argument("--gpus", help="how many of them, or NAME:COUNT; default: the profile's own")
    shown.add_argument("--json", action="store_true", help="for a program")
    moved = commands.add_parser("migrate", help="the LLM-API profile equivalent to an engine profile")
    moved.add_argument("profile")
    described = commands.add_parser(
        "schema", help="the JSON Schema with which an editor completes TOML, or of a document for programs"
    )
    described.add_argument("name", choices=("profile", "inventory", "status", "notification", "bench"))
    table = commands.add_parser(
        "models", help="which architectures are served, by which kind, from which release on"
    )
    table.add_argument("--json", action="store_true", help="for a program")
    _new_arguments(
        commands.add_parser("new", help="write a profile for a model of a hub, planned for some GPUs")
    )
    return parser


def _new_arguments(new: argparse.ArgumentParser) -> None:
    new.add_argument(
        "repository",
        metavar="REPOSITORY",
        help="OWNER/NAME on the hub; a path that begins with . or / is a directory",
    )
    new.add_argument(
        "--gpus", metavar="NAME:COUNT", help='GPUs as nvidia-smi names them, such as "NVIDIA A10:2"'
    )
    new.add_argument(
        "--shape", help="an OCI shape, such as BM.GPU4.8; default: the smallest that serves the model"
    )
    new.add_argument("--host", metavar="NAME", help="a host of inventories/oci.toml whose table has a shape")
    new.add_argument(
        "--kind", choices=("engine", "llmapi"), help="default: engine where TensorRT-LLM converts the model"
    )
    new.add_argument(
        "--release", metavar="YY.MM", help="default: the newest that serves the model on the GPUs"
    )
    new.add_argument(
        "--context",
        type=int,
        metavar="TOKENS",
        help="of one sequence, input and output; default: 8192 or what fits",
    )
    new.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help="sequences at a time; default: as many as fit, 64 at most",
    )
    new.add_argument("--name", help="of the profile; default: the repository's, in lower case")
    new.add_argument("--revision", help="a commit, branch or tag; default: the newest commit of main")
    new.add_argument("--hub", metavar="URL", help="a mirror; default: hub_endpoint of group_data/all.py")
    new.add_argument("--known-as", metavar="OWNER/NAME", help="the repository that a directory is a copy of")
    new.add_argument("--force", action="store_true", help="replace a profile of that name")
    new.add_argument("--json", action="store_true", help="for a program")


def main(arguments: list[str] | None = None, prog: str = PROGRAM) -> int:
    """The command; 2 for a profile that is not valid or cannot be planned."""
    given = parser(prog).parse_args(arguments)
    try:
        if given.command == "profiles":
            rows = []
            for name in profile_names():
                profile = load_profile(name)
                rows.append({"name": name, "kind": profile.kind, "summary": profile.summary})
                if not given.json:
                    print(f"{name:20} {profile.summary}")
            if given.json:
                print(json.dumps(rows, indent=2))
        elif given.command == "matrix":
            print(json.dumps(matrix_rows(), indent=2) + "\n" if given.json else matrix(), end="")
        elif given.command == "check":
            profile = profile_in(_existing(given.file), given.file.name)
            # planned for its own hardware, or for the largest GPU known: the versions of its flags show only then
            gpus = None if profile.hardware else f"NVIDIA H200:{profile.gpus_needed}"
            planned(given.file.stem, profile, read_group_data(GROUP_DATA / "all.py"), gpus)
            print(f"{given.file.name}: valid, kind {profile.kind}: {profile.summary}")
        elif given.command == "migrate":
            print(migrated(given.profile), end="")
        elif given.command == "models":
            print(json.dumps(model_rows(), indent=2) + "\n" if given.json else model_table(), end="")
        elif given.command == "new":
            # the only command that asks a hub: the plan itself imports nothing that does
            from operations import new_profile

            return new_profile.run(given)
        elif given.command == "schema":
            # imported here: no other command needs it
            from operations.plan.schema import schema_text

            print(schema_text(given.name), end="")
        else:
            gpus = f"{given.gpu}:{given.gpus or 1}" if given.gpu else given.gpus
            data = read_group_data(GROUP_DATA / "all.py")
            release = explained(given.profile, data, gpus, given.release)
            print(as_json(release) if given.json else text(release), end="")
    except PlanError as error:
        print(f"tritonhost: {error}", file=sys.stderr)
        if getattr(given, "json", False):
            print(json.dumps({"error": error.as_dict()}, indent=2))
        return 2
    return 0


def _existing(file: Path) -> Path:
    """The file, which may have been given by a profile's name. Raises PlanError where it is not there."""
    if file.exists():
        return file
    paths = {name: f"inventories/models/{name}.toml" for name in profile_names()}
    near = paths.get(file.stem) or paths.get(nearest(file.stem, paths), "")
    then = f"did you mean {near}?" if near else "such as inventories/models/gpt2-medium.toml"
    raise PlanError(
        "", "no such file", "the path of a profile", then, where=str(file), reference="no-such-profile"
    )


if __name__ == "__main__":
    sys.exit(main())
