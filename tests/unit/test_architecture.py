"""The rules of the house that a reader would otherwise have to check by eye."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
OPERATIONS = PROJECT / "operations"
PLAN = sorted((OPERATIONS / "plan").rglob("*.py"))
FACTS = sorted((OPERATIONS / "facts").glob("*.py"))
STAGES = sorted(
    [
        *OPERATIONS.glob("*.py"),
        *(path for wing in ("intake", "remote", "server") for path in (OPERATIONS / wing).glob("*.py")),
    ]
)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def imported(path: Path) -> tuple[str, ...]:
    """Every module a file imports, anywhere in it, by its full name."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", PLAN, ids=lambda path: path.name)
def test_plan_imports_only_the_plan_and_no_pyinfra(path: Path) -> None:
    names = list(imported(path))
    assert [name for name in names if name.split(".")[0] == "pyinfra"] == []
    # the command line is the one place that knows a command which asks a hub
    allowed = (
        ("operations.plan", "operations.new_profile") if path.name == "__main__.py" else ("operations.plan",)
    )
    assert [n for n in names if n.split(".")[0] == "operations" and not n.startswith(allowed)] == []


def test_plan_loads_no_pyinfra_and_no_grpc() -> None:
    code = (
        "import sys, operations.plan.difference, operations.plan.profile.model_repository;"
        "print([m for m in ('pyinfra', 'gevent', 'tritonclient', 'grpc') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert done.stdout == "[]\n"


def test_operations_takes_imports_out_of_collections() -> None:
    code = "import gc, operations; print(gc.get_freeze_count() > 1000)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert done.stdout == "True\n"


@pytest.mark.parametrize("path", FACTS, ids=lambda path: path.name)
def test_facts_import_no_stage(path: Path) -> None:
    allowed = ("operations.plan", "operations.facts", "operations.scripts")
    ours = [name for name in imported(path) if name.split(".")[0] == "operations"]
    assert [name for name in ours if not name.startswith(allowed)] == []


def operations_of(path: Path) -> set[str]:
    """The functions of a file that are decorated with @operation()."""
    return {
        node.name
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if ast.unparse(decorator).startswith("operation")
    }


OURS = {path.stem: operations_of(path) for path in STAGES}


def operation_calls(path: Path) -> Iterator[ast.Call]:
    """Calls of our operations, by their own name or their module's, and of those of pyinfra.operations."""
    of_pyinfra = {name.split(".")[-1] for name in imported(path) if name.startswith("pyinfra.operations.")}
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        module, _, function = ast.unparse(node.func).rpartition(".")
        if (
            function in (OURS.get(module) or ())
            or (not module and function in OURS.get(path.stem, ()))
            or module in of_pyinfra
        ):
            yield node


@pytest.mark.parametrize("path", [*STAGES, PROJECT / "deploy.py"], ids=lambda path: path.name)
def test_every_operation_is_called_by_name_and_keywords(path: Path) -> None:
    # Without name= pyinfra prints the arguments, and a secret among them.
    for call in operation_calls(path):
        where = f"{path.name}:{call.lineno} {ast.unparse(call.func)}"
        assert call.args == [], where
        assert "name" in [keyword.arg for keyword in call.keywords], where
        assert None not in [keyword.arg for keyword in call.keywords], where


def test_the_walk_finds_the_operations() -> None:
    # so that the test above cannot pass by finding none
    assert OURS["packages"] >= {"pinned", "absent", "trusted_key"}
    found = {ast.unparse(call.func) for path in STAGES for call in operation_calls(path)}
    assert found >= {
        "pinned",
        "etc_files.written",
        "systemd.service",
        "artifacts.artifact",
        "artifacts.image",
        "serving",
    }


def test_deploy_py_is_a_table_of_contents() -> None:
    body = tree(PROJECT / "deploy.py").body
    branches = [node for node in body if isinstance(node, ast.If)]
    assert [ast.unparse(branch.test) for branch in branches] == ["wanted", "watching", "balancing"]
    lines = []
    assert all(isinstance(branch.body[0], ast.ImportFrom) for branch in branches)
    calls = [statement for branch in branches for statement in branch.body[1:]]
    for statement in calls:
        assert isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
        call = statement.value
        lines.append(call.lineno)
        assert call.args == []
        # those that run others name them
        names = [keyword.arg for keyword in call.keywords]
        assert names == (
            ["release", "steps", "after_failure"]
            if ast.unparse(call.func) == "rollout.host_by_host"
            else ["release", "steps"]
            if ast.unparse(call.func).startswith("rollout.")
            else []
            if ast.unparse(call.func).endswith("converge")
            else ["release"]
        )
        module, _, function = ast.unparse(call.func).rpartition(".")
        assert (OPERATIONS / f"{module}.py").exists() and function
    # pyinfra matches operations across hosts by line numbers
    assert lines == sorted(set(lines))
    assert [branch.orelse for branch in branches] == [[], [], []]


@pytest.mark.parametrize("path", [*PLAN, *FACTS, *STAGES], ids=lambda path: str(path.relative_to(OPERATIONS)))
def test_every_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(tree(path))


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.name)
def test_stages_contain_no_tool_command_names(path: Path) -> None:
    # stages act on the plan; argument vectors of docker and TensorRT-LLM are assembled in plan/artifacts/commands.py alone
    words = {
        n.value for n in ast.walk(tree(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }
    assert words.isdisjoint({"trtllm-build", "tritonserver", "convert_checkpoint.py", "quantize.py"})


PATCHES = OPERATIONS / "pyinfra_patches.py"
OURS_ALL = sorted(
    path
    for path in (
        *OPERATIONS.rglob("*.py"),
        *(PROJECT / "inventories").rglob("*.py"),
        PROJECT / "config.py",
        PROJECT / "deploy.py",
    )
    if path != PATCHES
)
# Modules and attributes of pyinfra, gevent, click and paramiko that their makers may change without notice
INTERNAL_MODULES = (
    "pyinfra_cli",
    "click",
    "pyinfra.context",
    "pyinfra.connectors",
    "pyinfra.api.connect",
    "pyinfra.api.config",
    "pyinfra.api.operations",
    "gevent.hub",
    "gevent.pool",
)
INTERNAL_NAMES = {
    *("NOT_ERROR", "get_hub", "get_current_context"),
    *("add_callback_handler", "callback_handlers", "trigger_callbacks", "get_op_meta", "global_arguments"),
    *("pool", "fact_pool", "limit_hosts", "is_host_in_limit"),
    *("active_hosts", "activated_hosts", "failed_hosts", "activate_host", "fail_hosts"),
    *("make_hosts_and_groups", "init", "dict", "connector", "get_transport", "get_exception"),
    *("_inner", "_set_in_op", "_parallel"),
}
# methods that may be called, and not replaced
REPLACED = {"run_shell_command", "get_fact", "put_file", "connect", "disconnect"}


def internals(module: ast.Module) -> Iterator[str]:
    """What a module uses of pyinfra that pyinfra_patches.py is for, one `line: name` each."""
    for node in ast.walk(module):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [name for name in names if any(f"{name}.".startswith(f"{m}.") for m in INTERNAL_MODULES)]
        if isinstance(node, ast.Attribute):
            ours = isinstance(node.value, ast.Name) and node.value.id == PATCHES.stem
            stored = isinstance(node.ctx, ast.Store) and node.attr in REPLACED
            names = [node.attr] if stored or (node.attr in INTERNAL_NAMES and not ours) else []
        elif isinstance(node, ast.keyword) and node.arg in INTERNAL_NAMES:
            names = [node.arg]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in INTERNAL_NAMES:
            # global_arguments["_parallel"], getattr(host, "connector")
            names = [node.value] if node.value.startswith("_") else []
        yield from (f"{getattr(node, 'lineno', 0)}: {name}" for name in names)


@pytest.mark.parametrize("path", OURS_ALL, ids=lambda path: str(path.relative_to(PROJECT)))
def test_pyinfra_internals_are_used_in_one_module(path: Path) -> None:
    assert list(internals(tree(path))) == []


def test_pyinfra_internals_are_found() -> None:
    # so that the test above cannot pass by finding none
    found = {name.partition(": ")[2] for name in internals(tree(PATCHES))}
    assert {"click", "pyinfra.context.ctx_host", "pyinfra_cli.inventory.make_inventory"} <= found
    assert {"NOT_ERROR", "pool", "init", "_set_in_op", "_parallel", "run_shell_command", "dict"} <= found
    text = (
        "state.init = checked\nhost.run_shell_command = guarded\nfrom pyinfra_cli.util import parse_cli_arg\n"
    )
    assert len(list(internals(ast.parse(text)))) == 3
    text = "pyinfra_patches.failed_hosts(state)\nhost.run_shell_command('true')\nfrom pyinfra import host\n"
    assert list(internals(ast.parse(text))) == []


LONGEST_FILE, LONGEST_FUNCTION = 460, 60  # lines
EVERY = sorted(OPERATIONS.rglob("*.py"))


@pytest.mark.parametrize("path", EVERY, ids=lambda path: str(path.relative_to(OPERATIONS)))
def test_no_file_and_no_function_is_too_long(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= LONGEST_FILE
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno
        and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    }
    assert long == {}


@pytest.mark.parametrize("path", EVERY, ids=lambda path: str(path.relative_to(OPERATIONS)))
def test_no_module_imports_a_private_name(path: Path) -> None:
    private = [
        name
        for name in imported(path)
        if name.startswith("operations.") and name.rpartition(".")[2].startswith("_")
    ]
    assert private == []
