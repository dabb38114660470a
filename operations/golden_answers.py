"""The recorded answers of each profile, on the machine that deploys: compare a release with them, record it, accept other answers.

python -m operations.golden_answers show llama-3.1-8b
python -m operations.golden_answers accept llama-3.1-8b
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from operations.plan.artifacts.keys import digest
from operations.plan.errors import PlanError, one_line
from operations.plan.inventory.hosts import read_group_data
from operations.plan.paths import PROJECT
from operations.plan.profile.profiles import EngineProfile, LlmApiProfile
from operations.plan.release import Release
from operations.plan.serving import recorded
from operations.plan.serving.recorded import Answer, Record, Recorded

PROGRAM = "python -m operations.golden_answers"
DIRECTORY = "inventories/golden"
_LARGEST = 4 * 2**20  # bytes of a file
# Template parameters that change an answer's text, or the order in which numbers are added
_SHAPING = (
    *(
        "decoupled_mode",
        "accumulate_tokens",
        "skip_special_tokens",
        "add_special_tokens",
        "exclude_input_in_output",
    ),
    *(
        "decoding_mode",
        "max_beam_width",
        "enable_kv_cache_reuse",
        "enable_chunked_context",
        "logits_datatype",
    ),
)


def record_of(release: Release, answers: Sequence[Answer]) -> Record:
    """A release's answers, with how its numbers are computed."""
    profile = release.profile
    made_with = {
        "gpu": release.gpus[0].name,
        "tensorrt_llm": release.stack.tensorrt_llm,
        "image": release.image.key,
        "weights": release.artifact("weights").key,
    }
    if isinstance(profile, EngineProfile):
        made_with["engine"] = release.artifact("engine").key
        said = [f"{name}={release.parameters[name]}" for name in _SHAPING if name in release.parameters]
        made_with["parameters"] = " ".join(said)
    elif isinstance(profile, LlmApiProfile):
        made_with["arguments"] = digest(profile.model_files("")["tensorrt_llm/1/model.yaml"])[:16]
    today = datetime.now(UTC).date().isoformat()
    return Record(recorded.numerics(made_with), made_with, release.id, today, tuple(answers))


def path_of(model: str, directory: str, pending: bool = False) -> Path:
    """The file of a profile; `pending`: of answers that were held back."""
    return PROJECT / directory / f"{model}{'.pending' if pending else ''}.json"


def read(path: Path) -> Recorded:
    """The records of a file; none without one. Raises PlanError for a file that is not one of them."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return Recorded()
    except OSError as error:
        raise PlanError("", error.strerror, "a file that can be read", where=_shown(path)) from None
    if len(content) > _LARGEST:
        raise PlanError("", "a larger file", f"at most {_LARGEST} bytes", where=_shown(path))
    return recorded.read(content, _shown(path))


def write(path: Path, content: Recorded) -> None:
    """The file has these records, whole. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".json", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(recorded.text_of(content))
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def difference_of(release: Release, answers: Sequence[Answer]) -> str:
    """What is wrong with a release's answers, compared with the recorded ones; empty: nothing. Raises PlanError for a damaged file."""
    settings = release.settings
    if not answers or not settings.record_golden:
        return ""
    known = read(path_of(settings.model, settings.golden_directory))
    if release.id in known.accepted:
        return ""
    return recorded.difference(known, record_of(release, answers), settings.golden_agreement)


def problem_of(release: Release, answers: Sequence[Answer]) -> str:
    """
    The same, with how to accept the answers. They are kept beside the records, so that they can be accepted.

    Raises PlanError as difference_of does.
    """
    problem = difference_of(release, answers)
    if not problem:
        return ""
    settings = release.settings
    with suppress(OSError):  # the release is held back in any case
        pending = path_of(settings.model, settings.golden_directory, pending=True)
        write(pending, Recorded((record_of(release, answers),)))
    return f"{problem}; accept it: {PROGRAM} accept {settings.model}, and run again"


def keep(release: Release, answers: Sequence[Answer]) -> str:
    """The answers of a proven release are recorded, if none are for its numerics. Returns one line where they could not be."""
    settings = release.settings
    if not answers or not settings.record_golden:
        return ""
    path = path_of(settings.model, settings.golden_directory)
    try:
        known, record = read(path), record_of(release, answers)
        same = next((one for one in known.records if one.numerics == record.numerics), None)
        # it passed the comparison: what differs are requests that were not asked before, or answers that were accepted
        if same is None or same.answers != record.answers:
            write(path, known.with_record(record))
    except (PlanError, OSError) as error:
        return f"golden answers not recorded: {one_line(str(error))}"
    return ""


def accepted(release: Release) -> bool:
    """Whether a person has accepted the answers for which this release was held back."""
    settings = release.settings
    if not settings.record_golden:
        return False
    try:
        return release.id in read(path_of(settings.model, settings.golden_directory)).accepted
    except PlanError:
        return False  # a swap says what is wrong with the file


def accept(model: str, directory: str) -> str:
    """
    The answers that were held back are the recorded ones from now on, and their release may be deployed.

    Returns one line. Raises PlanError where nothing was held back.
    """
    pending = path_of(model, directory, pending=True)
    held = read(pending).records
    if not held:
        raise PlanError(
            model,
            "no answers that were held back",
            "a release that was",
            f"see {_shown(pending.parent)}",
            reference="nothing-to-accept",
        )
    path, record = path_of(model, directory), held[-1]
    try:
        write(path, read(path).with_record(record, accepted=True))
        pending.unlink()
    except OSError as error:
        raise PlanError(
            _shown(path), error.strerror, "a file that can be written", reference="not-written"
        ) from None
    return f"{_shown(path)}: the answers of release {record.release} are accepted; run the deploy again"


def _shown(path: Path) -> str:
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The command's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(prog=prog, description="Recorded golden answers.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("show", "print the recorded answers of a profile, and what was held back"),
        ("accept", "let a release that was held back for its answers be deployed"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("profile")
        command.add_argument("--directory", help="default: golden_directory of group_data/all.py")
    return parser


def main(arguments: list[str] | None = None, prog: str = PROGRAM) -> int:
    """The command; 2 for a profile of which nothing is known."""
    given = parser(prog).parse_args(arguments)
    try:
        data = read_group_data(PROJECT / "inventories" / "group_data" / "all.py")
        directory = given.directory or str(data.get("golden_directory", DIRECTORY))
        if given.command == "accept":
            print(f"tritonhost: {accept(given.profile, directory)}")
        else:
            print("\n".join(_lines(given.profile, directory)))
    except PlanError as error:
        print(f"tritonhost: {error}", file=sys.stderr)
        return 2
    return 0


def _lines(model: str, directory: str) -> list[str]:
    lines = []
    for pending, title in ((False, "recorded"), (True, "held back")):
        for record in read(path_of(model, directory, pending)).records:
            made_with = ", ".join(
                record.made_with[name] for name in ("gpu", "tensorrt_llm") if name in record.made_with
            )
            lines.append(f"{title} {record.at}, release {record.release}: {made_with}")
            for answer in record.answers:
                lines += [
                    f"  {answer.model}: {one_line(answer.prompt)[:70]}",
                    f"    {one_line(answer.text)[:300]}",
                ]
    if not lines:
        raise PlanError(
            model,
            "no recorded answers",
            f"{directory}/{model}.json",
            "a proven deploy writes it",
            reference="nothing-recorded",
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
