"""A check that is taken out of the code is noticed: for each mutant of a module, the tests that are named beside it fail.

The tests run on a copy of the tracked files, in a process of their own, once without a mutant and once with each. MUTANTS chooses a
third of them (`1/3`, `2/3`, `3/3`), as `make test` does, another one each day.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import cache_from_source
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_S = 300  # of all tests of the table; a mutant that hangs fails
# How pytest's summary begins to say why a test failed, where that is an assertion of the test
ASSERTIONS = ("assert ", "AssertionError", "Failed: DID NOT RAISE")


class Mutant(NamedTuple):
    """
    A module without one of its checks.

    + file: relative to operations/
    + text: what is replaced, which the file has once; by: what stands in its place
    + noticed_by: the tests that fail, each of them
    """

    name: str
    file: str
    text: str
    by: str
    noticed_by: tuple[str, ...]


UNIT, OPERATIONS, DOOR = "tests/unit", "tests/operations", "tests/door"
DOOR_FILES = "../files/image/door"
METRIC_NAMES = (
    f"{DOOR}/test_metric_names.py::test_each_door_metric_is_one_that_the_door_exposes[board]",
    f"{DOOR}/test_metric_names.py::test_board_shows_each_kind_of_the_door_s_numbers",
)
EXPOSED, EXPOSURE = f"{UNIT}/test_exposed.py", f"{OPERATIONS}/test_exposure.py"
REPORTS, GOLDEN = f"{UNIT}/test_public_reports.py", f"{UNIT}/test_golden_answers.py"
PROPOSAL, LOCK = f"{UNIT}/test_proposal.py", f"{UNIT}/test_lock_inventory.py"
MUTANTS = (
    # which hosts are exposed
    Mutant(
        "fixed version is affected too",
        "plan/audit/csaf.py",
        "if self.below and version >= Version(self.below):",
        "if self.below and version > Version(self.below):",
        (
            f"{EXPOSED}::test_version_is_exposed_below_the_fix_alone[26.07-expected3]",
            f"{EXPOSURE}::test_host_that_was_not_read_is_named",
        ),
    ),
    Mutant(
        "comparison with the fix is turned round",
        "plan/audit/csaf.py",
        "if self.below and version >= Version(self.below):",
        "if self.below and version < Version(self.below):",
        (
            f"{EXPOSED}::test_bulletin_that_no_floor_knows_yet_is_exposed",
            f"{EXPOSURE}::test_saved_facts_are_a_table",
        ),
    ),
    Mutant(
        "fix of another branch of the driver counts",
        "plan/audit/bulletins.py",
        'if self.branch and version.split(".")[0] != self.branch:',
        "if False:",
        (
            f"{EXPOSED}::test_branch_that_has_ended_is_said",
            f"{EXPOSED}::test_worst_is_first_and_waived_behind_exposed",
        ),
    ),
    Mutant(
        "waiver has no end",
        "plan/audit/exposed.py",
        "if until is not None and until >= today:",
        "if until is not None:",
        (f"{EXPOSED}::test_waiver_holds_up_to_its_last_day[2026-11-29-exposed]",),
    ),
    Mutant(
        "advice covers what is required",
        "plan/audit/exposed.py",
        "if not covering or any(not floor.advice for floor in covering):",
        "if not covering:",
        (f"{EXPOSED}::test_advice_covers_no_older_bulletin_that_is_required",),
    ),
    Mutant(
        "host that was not read is not exposed",
        "plan/audit/exposed.py",
        "return 2 if self.unread else 0",
        "return 0",
        (
            f"{EXPOSED}::test_host_that_was_not_read_has_the_exit_code_2",
            f"{EXPOSURE}::test_host_that_was_not_read_is_named",
        ),
    ),
    Mutant(
        "sentence that is not understood is dropped",
        "plan/audit/csaf.py",
        "        if affected is None and not version:\n            unread.append(",
        "        if affected is None and not version:\n            str(",
        (f"{UNIT}/test_csaf.py::test_sentence_not_understood_without_a_fix_is_kept",),
    ),
    # the door
    Mutant(
        "places of the door need no key",
        "../templates/gateway.conf.j2",
        """            error_page 502 504 = @v1_unavailable;
            if ($client = "") {
                return 401;
            }
""",
        "            error_page 502 504 = @v1_unavailable;\n",
        (f"{UNIT}/test_door.py::test_each_place_of_the_door_needs_a_key",),
    ),
    Mutant(
        "chat template has no sandbox",
        f"{DOOR_FILES}/template.py",
        "environment = ImmutableSandboxedEnvironment(",
        'environment = __import__("jinja2").Environment(',
        (f"{DOOR}/test_tokens.py::test_template_has_no_way_to_the_interpreter",),
    ),
    Mutant(
        "answer has a token more",
        f"{DOOR_FILES}/generation.py",
        "            state.tokens += len(ids)\n",
        "            state.tokens += len(ids) + 1\n",
        (
            f"{DOOR}/test_answers.py::test_chat_answer_has_text_reason_and_usage",
            f"{DOOR}/test_answers.py::test_stream_has_the_same_text_and_usage",
        ),
    ),
    Mutant(
        "metric has another name",
        f"{DOOR_FILES}/metrics.py",
        '"tritonhost_door_streams", "Requests',
        '"tritonhost_door_open_streams", "Requests',
        METRIC_NAMES,
    ),
    Mutant(
        "parameter that the model has no input for is left out",
        f"{DOOR_FILES}/wishes.py",
        """            raise unsupported(name, "the model's server does not take it")
""",
        "            continue\n",
        (f"{DOOR}/test_tokens.py::test_parameter_without_an_input_is_refused",),
    ),
    Mutant(
        "limit of a day is not kept",
        f"{DOOR_FILES}/usage.py",
        "if used >= limit or used + prompt_tokens > limit:",
        "if False:",
        (f"{DOOR}/test_usage.py::test_tokens_above_the_day_s_limit_are_refused",),
    ),
    Mutant(
        "guard lets the door connect to everything",
        "../templates/guard.nft.j2",
        """ } tcp dport { {{ guard.door_ports | join(", ") }} } accept
        counter drop
""",
        " } accept\n",
        (f"{UNIT}/test_door.py::test_guard_lets_the_door_reach_the_servers_alone",),
    ),
    # the family: of the weights, in the model table, and where `new` chooses a kind
    Mutant(
        "converter reads any model type",
        "plan/capacity/described.py",
        "    if found not in allowed:\n",
        "    if False:\n",
        (
            f"{REPORTS}::test_engine_of_an_unsupported_architecture_is_refused[qwen2]",
            f"{OPERATIONS}/test_weights.py::test_other_model_type_is_refused_on_its_host_only",
        ),
    ),
    Mutant(
        "every row is of llama's family",
        "plan/catalog/models.py",
        ' for row in _ROWS if row.family in ("llama", "mistral", "mixtral")',
        " for row in _ROWS",
        (
            f"{REPORTS}::test_engine_of_an_unsupported_architecture_is_refused[falcon]",
            f"{REPORTS}::test_engine_of_an_unsupported_architecture_is_refused[qwen2]",
        ),
    ),
    Mutant(
        "release serves any architecture",
        "plan/capacity/described.py",
        "    if row.pytorch is None or stack.version < row.pytorch:\n",
        "    if False:\n",
        (
            f"{REPORTS}::test_architecture_missing_from_pytorch_backend_is_refused[GPT2LMHeadModel]",
            f"{REPORTS}::test_architecture_of_a_later_release_names_it",
        ),
    ),
    # the golden comparison: in a swap, between records, by its limit, and the profile's own answer
    Mutant(
        "swap compares no answers",
        "swap.py",
        "    _compare(host, swap, server)\n",
        "",
        (
            f"{OPERATIONS}/test_swap.py::test_swap_asks_again_before_it_holds_a_release_back",
            f"{OPERATIONS}/test_swap.py::test_swap_holds_back_a_release_that_answers_differently",
        ),
    ),
    Mutant(
        "recorded answers are not compared",
        "golden_answers.py",
        "    return recorded.difference(known, record, settings.golden_agreement, exact, settings.golden_less_likely)\n",
        '    return ""\n',
        (f"{GOLDEN}::test_another_answer_is_held_back_and_kept",),
    ),
    Mutant(
        "same numbers may answer differently",
        "plan/serving/recorded.py",
        "        same_text = same is not None and exact\n",
        "        same_text = False\n",
        (f"{GOLDEN}::test_equal_numerics_must_answer_the_same",),
    ),
    Mutant(
        "an answer may be less likely",
        "plan/serving/recorded.py",
        "        if same is None and nats > less_likely:\n",
        "        if False:\n",
        (f"{GOLDEN}::test_answer_of_other_numerics_must_be_as_likely[-6.5--13.2-True]",),
    ),
    Mutant(
        "golden_agreement is ignored",
        "plan/serving/recorded.py",
        "        if part >= agreement and not same_text:\n",
        "        if not same_text:\n",
        (
            f"{GOLDEN}::test_line_of_other_numerics_has_both_numbers",
            f"{GOLDEN}::test_other_numerics_must_agree_in_part[Something else entirely-0.6-True]",
        ),
    ),
    Mutant(
        "any golden answer is right",
        "server/golden.py",
        "        good = answer.strip().startswith(golden.expect.strip())\n",
        "        good = True\n",
        (f"{UNIT}/test_golden_requests.py::test_a_wrong_answer_of_the_second_model_is_named",),
    ),
    # the capacity of kind llmapi: by the model's numbers, and by its files
    Mutant(
        "llmapi has no forecast",
        "plan/capacity/fit.py",
        "        return _of_llm_api(profile, stack, gpu, architecture, stored)\n",
        "        return None\n",
        (
            f"{REPORTS}::test_config_of_the_hub_is_compared_with_the_gpu",
            f"{REPORTS}::test_llmapi_model_too_large_for_the_gpu_is_refused",
        ),
    ),
    Mutant(
        "size of the files is not compared",
        "plan/capacity/described.py",
        "    _check_size(profile, gpus[0], described)\n",
        "",
        (f"{REPORTS}::test_file_sizes_are_compared_for_any_architecture",),
    ),
    # `new`
    Mutant(
        "new pins a branch",
        "hub_repository.py",
        "        found = Repository(name, info.sha, files, gated=bool(info.gated))\n",
        '        found = Repository(name, revision or "main", files, gated=bool(info.gated))\n',
        (f"{UNIT}/test_hub_repository.py::test_branch_and_commit_lead_to_the_same",),
    ),
    Mutant(
        "new reads the files of a branch",
        "hub_repository.py",
        "found.name, path, revision=found.revision, local_dir=folder,",
        "found.name, path, local_dir=folder,",
        (f"{UNIT}/test_hub_repository.py::test_files_are_read_at_the_commit",),
    ),
    Mutant(
        "new takes what cannot be served",
        "plan/proposal/propose.py",
        "    check_servable(found)\n",
        "",
        (f"{PROPOSAL}::test_what_cannot_be_served_is_said[-pickles alone (pytorch_model.bin)]",),
    ),
    Mutant(
        "template runs without a sandbox",
        "plan/proposal/render.py",
        "from jinja2.sandbox import ImmutableSandboxedEnvironment\n",
        "from jinja2 import Environment as ImmutableSandboxedEnvironment\n",
        (f"{PROPOSAL}::test_template_that_fails_gives_a_plain_prompt[{{{{ messages.__class__.__mro__ }}}}]",),
    ),
    # `lock`
    Mutant(
        "lock file has any digest",
        "plan/inventory/lock_file.py",
        ' or (kind == "images" and not _DIGEST.match(value))',
        "",
        (f"{LOCK}::test_damaged_lock_file_is_refused[digest]",),
    ),
    Mutant(
        "two registries may disagree",
        "lock_inventory.py",
        "        if other != digest:\n",
        "        if False:\n",
        (f"{LOCK}::test_two_registries_must_agree",),
    ),
    Mutant(
        "lock asks for no pinned commit",
        "lock_inventory.py",
        "            newest_commit(model.name, model.hub, model.commit)\n",
        "",
        (f"{LOCK}::test_each_commit_that_a_host_pins_is_asked_for",),
    ),
    # `replay`
    Mutant(
        "missing answer agrees",
        "plan/serving/replayed.py",
        "None if a.error or b.error else agreement_of(a.text, b.text)",
        "agreement_of(a.text, b.text)",
        (f"{UNIT}/test_replayed.py::test_pairs_have_their_agreement",),
    ),
    Mutant(
        "report shows a secret that a run's report holds",
        "plan/report.py",
        "_Text = Annotated[str, AfterValidator(plain)]",
        "_Text = Annotated[str, AfterValidator(str)]",
        ("tests/deploy/test_report.py::test_run_is_on_the_page_without_a_secret",),
    ),
    Mutant(
        "host whose versions are not known counts as secure",
        "plan/report.py",
        "bool(found and (found.exposed or found.unread))",
        "bool(found and found.exposed)",
        (f"{UNIT}/test_report.py::test_exit_code_counts_states_and_what_is_exposed[serving-exposure5-1]",),
    ),
    Mutant(
        "page of 200 hosts grows without a limit",
        "plan/report_page.py",
        "if len(made.encode()) <= LARGEST:",
        "if made:",
        (f"{UNIT}/test_report_page.py::test_page_of_200_hosts_stays_small[plain]",),
    ),
    Mutant(
        "page of replay has an answer's markup",
        "plan/html_page.py",
        "</span>', escape(text))",
        "</span>', text)",
        (f"{UNIT}/test_replay_page.py::test_page_shows_markup_as_text",),
    ),
    Mutant(
        "replay without an answer succeeds",
        "replay.py",
        '    return 1 if found["from"]["errors"] or found["to"]["errors"] else 0\n',
        "    return 0\n",
        (f"{UNIT}/test_replay.py::test_prompt_without_an_answer_is_an_error",),
    ),
    # `bench`
    Mutant(
        "comparison of two speeds is turned round",
        "plan/serving/bench_result.py",
        "worse = b < a * (1 - allowed) if higher else b > a * (1 + allowed)",
        "worse = b > a * (1 + allowed) if higher else b < a * (1 - allowed)",
        (f"{UNIT}/test_bench.py::test_comparison_ends_with_1_where_b_is_worse",),
    ),
    Mutant(
        "gate of the speed is turned round",
        "plan/serving/gates.py",
        "if now.rate < share * before.rate:",
        "if before.rate < share * now.rate:",
        (
            f"{UNIT}/test_gates.py::test_both_that_is_slower_is_said",
            f"{OPERATIONS}/test_speed.py::test_swap_puts_a_slower_release_back",
        ),
    ),
    Mutant(
        "speed of the release that serves is taken for the next one's",
        "server/speed.py",
        'if server.link == "next"',
        "if False",
        (f"{OPERATIONS}/test_speed.py::test_release_beside_is_the_one_that_is_measured",),
    ),
    Mutant(
        "status shows what a host's own files say",
        "plan/status.py",
        "said = one_line(redacted(text)[0])",
        "said = one_line(text)",
        (f"{UNIT}/test_status.py::test_document_has_no_secret_of_a_host_s_own_files",),
    ),
    Mutant(
        "status takes a server that fails again and again for a starting one",
        "plan/status.py",
        ' and unit.get("SubState") != "auto-restart"',
        "",
        (f"{UNIT}/test_status.py::test_state_is_decided_by_what_runs[observed10-down]",),
    ),
    Mutant(
        "status serves whatever differs",
        "plan/status.py",
        "rows is not None and not rows else",
        "rows is not None else",
        (f"{UNIT}/test_status.py::test_state_is_decided_by_what_runs[observed1-differs]",),
    ),
    Mutant(
        "token goes where a redirect leads",
        "notification_sender.py",
        "build_opener(_NotFollowed(), ",
        "build_opener(",
        (f"{OPERATIONS}/test_notification_sender.py::test_redirect_is_not_followed[302]",),
    ),
    Mutant(
        "webhook's URL may hold a secret",
        "plan/inventory/notification_settings.py",
        "    if secret or any(",
        "    if any(",
        (
            f"{UNIT}/test_notification.py::test_secret_in_a_url_is_refused_and_not_shown[https://hooks.example/deploys?token=CANARY]",
        ),
    ),
    Mutant(
        "message says what a failed gate said",
        "rollout.py",
        '        release=_run.releases.get(each.name, ""),\n        wanted=',
        '        release=_run.statuses.get(each.name, ""),\n        wanted=',
        (
            f"{OPERATIONS}/test_rollout.py::test_message_has_the_state_and_no_text_of_a_failure[gateway: CANARY-failed]",
        ),
    ),
)


class Ended(NamedTuple):
    """
    A run of pytest.

    + failed: test -> why, in the words of pytest's summary
    """

    code: int
    failed: dict[str, str]
    output: str


def run(tree: Path, tests: Iterable[str], keep_byte_code: bool = False) -> Ended:
    """Run tests of a copy of the repository."""
    environment = {
        name: value
        for name, value in os.environ.items()
        # another project's directory, another run's options
        if not name.startswith(("TRITONHOST_", "PYTEST_", "PYTHON"))
    }
    # the summary cuts its lines to the terminal's width
    environment |= {"COLUMNS": "300", **({} if keep_byte_code else {"PYTHONDONTWRITEBYTECODE": "1"})}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", "--tb=short", *tests],
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    summary = [line[len("FAILED ") :] for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    failed = {test: why for test, _, why in (line.partition(" - ") for line in summary)}
    return Ended(done.returncode, failed, done.stdout + done.stderr)


def stale(mutant: Mutant, text: str) -> str:
    """Why a mutant cannot be made of a module's text; empty: it can."""
    if (count := text.count(mutant.text)) == 1:
        return ""
    return f"the table is stale: operations/{mutant.file} has {mutant.text.strip()!r} {count} times, expected once: {mutant.name}"


def apply(mutant: Mutant, tree: Path) -> None:
    """The copy has the mutant in the place of the module, and no byte code of it."""
    path = tree / "operations" / mutant.file
    text = path.read_text("utf-8")
    assert not (problem := stale(mutant, text)), problem
    path.unlink()  # another copy has the same file
    path.write_text(text.replace(mutant.text, mutant.by), "utf-8")
    Path(cache_from_source(str(path))).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files, in which every test of the table passes; with byte code, so that a mutant compiles one module."""
    tree = tmp_path_factory.mktemp("tree")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    for path in filter(None, listed.stdout.split("\0")):
        if (source := REPOSITORY / path).is_file():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tree / path)
    tests = dict.fromkeys(test for mutant in CHOSEN for test in mutant.noticed_by)
    # by themselves: gRPC does not work in one process with gevent, which pyinfra brings
    of_the_door = [test for test in tests if test.startswith(DOOR)]
    for some in (of_the_door, [test for test in tests if test not in of_the_door]):
        if not some:
            continue
        ended = run(tree, some, keep_byte_code=True)
        assert ended.code == 0, ended.output
    return tree


def test_texts_of_the_mutants_occur_once() -> None:
    texts = {mutant: (REPOSITORY / "operations" / mutant.file).read_text("utf-8") for mutant in MUTANTS}
    assert [problem for mutant, text in texts.items() if (problem := stale(mutant, text))] == []


def chosen(wanted: str) -> tuple[Mutant, ...]:
    """The mutants of a third, or all."""
    thirds = {f"{number + 1}/3": MUTANTS[number::3] for number in range(3)}
    assert wanted in ("", *thirds), f"MUTANTS: found {wanted}, expected one of {', '.join(thirds)}"
    return thirds.get(wanted, MUTANTS)


CHOSEN = chosen(os.environ.get("MUTANTS", ""))


def test_thirds_of_the_mutants_are_all_of_them() -> None:
    parts = [chosen(f"{number}/3") for number in (1, 2, 3)]
    assert sorted(mutant.name for part in parts for mutant in part) == sorted(
        mutant.name for mutant in MUTANTS
    )


@pytest.mark.slow
@pytest.mark.parametrize("mutant", CHOSEN, ids=lambda mutant: mutant.name)
def test_mutant_is_noticed(mutant: Mutant, tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy, copy_function=os.link)
    apply(mutant, copy)
    ended = run(copy, mutant.noticed_by)
    assert ended.code == 1, ended.output
    assert sorted(ended.failed) == sorted(mutant.noticed_by), ended.output
    others = {test: why for test, why in ended.failed.items() if not why.startswith(ASSERTIONS)}
    assert others == {}, ended.output
