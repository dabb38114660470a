"""The recorded answers of each profile, on the machine that deploys: compare a release with them, record it, accept other answers.

python -m operations.golden_answers show llama-3.1-8b
python -m operations.golden_answers accept llama-3.1-8b
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from operations.plan.artifacts.keys import key_of
from operations.plan.errors import PlanError, one_line
from operations.plan.inventory.hosts import read_group_data
from operations.plan.paths import PROJECT
from operations.plan.profile.profiles import EngineProfile, LlmApiProfile
from operations.plan.release import Release
from operations.plan.serving import recorded
from operations.plan.serving.recorded import Answer, Record, Recorded
from operations.whole_file import beside

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
    *(
        "enable_context_fmha_fp32_acc",
        "multi_block_mode",
        "cuda_graph_mode",
        "max_attention_window_size",
        "sink_token_length",
    ),
)
# Arguments of the LLM API that do neither
_SIZES = ("max_batch_size", "max_num_tokens", "max_seq_len", "max_input_len")
_CACHE_SIZES = ("free_gpu_memory_fraction", "max_tokens", "host_cache_size")
# What a verdict says of a release that was held back for its answers
HELD_BACK = "golden request to "


def record_of(release: Release, answers: Sequence[Answer], host: str) -> Record:
    """
    A release's answers, with how its numbers are computed.

    + host: the host's name: an engine's kernels, and those of the PyTorch backend, are chosen there by timing
    """
    profile = release.profile
    made_with = {
        "host": host,
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
        llm = {name: value for name, value in profile.llm.items() if name not in _SIZES}
        cache = llm.get("kv_cache_config")
        if isinstance(cache, Mapping):
            llm["kv_cache_config"] = {
                name: value for name, value in cache.items() if name not in _CACHE_SIZES
            }
        made_with["arguments"] = key_of({"llm": llm, "decoupled": profile.decoupled})
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
    text = recorded.text_of(content)
    if len(text.encode()) > _LARGEST:
        raise OSError(errno.EFBIG, f"more than {_LARGEST} bytes")
    with beside(path, text, ".json") as part:
        part.replace(path)


def difference_of(release: Release, answers: Sequence[Answer], host: str, exact: bool = True) -> str:
    """
    What is wrong with a release's answers, compared with the recorded ones; empty: nothing.

    + exact: as in recorded.difference

    Raises PlanError for a damaged file.
    """
    settings = release.settings
    if not answers or not settings.record_golden:
        return ""
    known = read(path_of(settings.model, settings.golden_directory))
    record = record_of(release, answers, host)
    return recorded.difference(known, record, settings.golden_agreement, exact, settings.golden_less_likely)


def held_back(release: Release, answers: Sequence[Answer], host: str) -> str:
    """The answers of a release that is held back are kept beside the records. Returns how to accept them."""
    settings = release.settings
    path = path_of(settings.model, settings.golden_directory, pending=True)
    with suppress(OSError, PlanError):  # the release is held back in any case
        write(path, read(path).with_record(record_of(release, answers, host)))
    return f"accept it: {PROGRAM} accept {settings.model}, and run again"


def keep(release: Release, answers: Sequence[Answer], host: str) -> str:
    """
    The answers of a proven release are recorded, if none are for its numerics, and it is held back no more.

    Returns one line where they could not be.
    """
    settings = release.settings
    if not answers or not settings.record_golden:
        return ""
    path, pending = (path_of(settings.model, settings.golden_directory, held) for held in (False, True))
    try:
        known, record = read(path), record_of(release, answers, host)
        same = next((one for one in known.records if one.numerics == record.numerics), None)
        asked = {answer.request for answer in record.answers}
        # it passed the comparison: what differs are requests that were not asked before
        wanted = (
            known
            if same and asked == {answer.request for answer in same.answers}
            else known.with_record(record)
        )
        if (wanted := wanted.without(release.id)) != known:
            write(path, wanted)
        if pending.exists():
            held = read(pending)
            left = tuple(one for one in held.records if one.release != release.id)
            if left != held.records:
                write(pending, Recorded(left))
    except (PlanError, OSError) as error:
        return f"golden answers not recorded: {one_line(str(error))}"
    return ""


def accepted(release: Release, verdict: str) -> bool:
    """
    Whether a person has accepted the answers for which this release was held back.

    + verdict: what the host remembers of it: a release that failed for something else, or was rolled back, is not tried again by itself
    """
    settings = release.settings
    if not settings.record_golden or HELD_BACK not in verdict:
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
    path = path_of(model, directory)
    known = read(path)
    for record in held:
        known = known.with_record(record, accepted=True)
    try:
        write(path, known)
        pending.unlink()
    except OSError as error:
        raise PlanError(
            _shown(path), error.strerror, "a file that can be written", reference="not-written"
        ) from None
    names = ", ".join(sorted({record.release for record in held}))
    return f"{_shown(path)}: the answers of release {names} are accepted; run the deploy again"


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
                record.made_with[name] for name in ("host", "gpu", "tensorrt_llm") if name in record.made_with
            )
            lines.append(f"{title} {record.at}, release {record.release}: {made_with}")
            for answer in record.answers:
                lines += [
                    f"  {answer.model}, {answer.max_tokens} tokens: {one_line(answer.prompt)}",
                    f"    {one_line(answer.text)}",
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
