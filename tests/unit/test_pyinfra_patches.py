"""What operations/pyinfra_patches.py relies on, one test a function; and each test fails when the library changes that."""

from __future__ import annotations

import inspect
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import gevent
import paramiko
import pyinfra.api.operations
import pyinfra.api.state
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gevent.hub import Hub
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.config import Config
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host, HostData
from pyinfra.api.inventory import Inventory
from pyinfra.api.operation import add_op, operation
from pyinfra.api.operations import run_ops
from pyinfra.api.state import BaseStateCallback, State
from pyinfra.connectors import util as connectors
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import CommandOutput, OutputLine
from pyinfra.context import ctx_host, ctx_state
from pyinfra.facts.server import Hostname

from operations import pyinfra_patches, rollout

PROJECT = Path(__file__).resolve().parents[2]
QUICK = {"fake_delay": 0, "fake_delay_jitter": 0}


def state_of(*names: str, parallel: int = 0) -> State:
    """A state with hosts that are active: of pyinfra's @fake connector, or of SSH where a name has no @."""
    state = State()
    config = Config()  # type: ignore[no-untyped-call]
    config.PARALLEL = parallel
    state.init(Inventory((list(names), QUICK)), config)  # type: ignore[no-untyped-call]
    for host in state.inventory:
        host.connected = True
        state.activate_host(host)
    return state


def first(state: State) -> Host:
    return next(iter(state.inventory))


def source_of(name: str) -> str:
    """A file of pyinfra_cli, read without an import: that would patch the standard library of this process."""
    spec = find_spec("pyinfra_cli")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).with_name(name).read_text("utf-8")


# Before a connection is opened


def test_command_line_returns_pyinfra_options() -> None:
    assert pyinfra_patches.command_line() == {}
    seen: list[Any] = []

    @click.command()
    @click.option("--limit")
    def command(limit: str) -> None:
        seen.append(pyinfra_patches.command_line()["limit"])

    command.main(["--limit", "gpu-1"], standalone_mode=False)
    assert seen == ["gpu-1"]
    [parameters] = re.findall(r"^def _main\((.*?)\):$", source_of("cli.py"), re.DOTALL | re.MULTILINE)
    names = set(re.findall(r"^    (\w+)", parameters, re.MULTILINE))
    assert names >= {"inventory", "operations", "group_data", "limit", "exclude", "serial", "no_wait"}


def test_before_connecting_calls_check_then_begun() -> None:
    order: list[str] = []
    state = State()
    inventory = Inventory((["@fake/one"], QUICK))  # type: ignore[no-untyped-call]
    with ctx_state.use(state):
        pyinfra_patches.before_connecting(
            lambda given: order.append(f"check {given is inventory} {state.initialised}"),
            lambda: order.append(f"begun {state.initialised}"),
        )
    state.init(inventory, Config(), initial_limit=None)  # type: ignore[no-untyped-call]
    assert order == ["check True False", "begun True"]
    # what pyinfra's command calls, in order
    _, _, body = source_of("cli.py").partition("def _main(")
    calls = re.findall(
        r"\b(_set_config|make_inventory|state\.init|connect_all)\(", body.partition("\ndef ")[0]
    )
    assert calls == ["_set_config", "make_inventory", "state.init", "connect_all"]
    assert "exec_file(config_filename)" in source_of("cli.py")


def test_before_merging_gets_the_lists_by_name() -> None:
    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Inventory, "make_hosts_and_groups", Inventory.make_hosts_and_groups)  # to be restored
        pyinfra_patches.before_merging(seen.append)
        made = Inventory((["a", ("b", {"x": 1})], {}), some=(["a"], {"y": 2}))  # type: ignore[no-untyped-call]
    assert seen == [{"all": ["a", ("b", {"x": 1})], "some": ["a"]}]
    assert [host.name for host in made] == ["a", "b"]


def test_load_private_key_reads_and_never_asks() -> None:
    key = Ed25519PrivateKey.generate()
    with tempfile.TemporaryDirectory() as folder:
        for password in (b"", b"secret"):
            quick = serialization.PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(1)
            hidden = quick.build(password) if password else serialization.NoEncryption()
            text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, hidden)
            path = Path(folder, "key")
            path.write_bytes(text)
            if password:
                with pytest.raises(Exception, match=r"(?i)password|passphrase|encrypted"):
                    pyinfra_patches.load_private_key(path)
            else:
                pyinfra_patches.load_private_key(path)


# pyinfra's inventory, in a program of ours

READ = """
import tempfile
from pathlib import Path
from operations import pyinfra_patches
import pyinfra_cli.inventory, pyinfra_cli.util

def check():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "mine.py").write_text("hosts = ['@fake/one', '@fake/two']")
        for place, text in (("group_data", "color = 'red'; size = 1"), ("further", "size = 2")):
            Path(folder, place).mkdir()
            Path(folder, place, "all.py").write_text(text)
        further = [folder + "/further"]
        state, inventory = pyinfra_patches.read_inventory(folder + "/mine.py", {"color": "blue"}, further)
    found = {host.name: (host.data.color, host.data.size) for host in inventory}
    assert found == {"@fake/one": ("blue", 2), "@fake/two": ("blue", 2)}, found
    values = [pyinfra_patches.value_of_option(text) for text in ("true", "3", "[1]", "text")]
    assert values == [True, 3, [1], "text"], values

check()
for module, name, other in (
    (pyinfra_cli.inventory, "make_inventory", lambda inventory, override_data=None: None),
    (pyinfra_cli.inventory, "make_inventory", None),
    (pyinfra_cli.util, "parse_cli_arg", lambda text: text),
):
    kept = getattr(module, name)
    setattr(module, name, other)
    try:
        check()
    except (AssertionError, TypeError) as error:
        print(name, type(error).__name__)
    setattr(module, name, kept)
"""


def test_read_inventory_and_value_of_option_are_pyinfras() -> None:
    # in a process of its own: pyinfra_cli patches the standard library
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    # the second half: the check fails where pyinfra changes
    assert done.stdout.splitlines() == [
        "make_inventory TypeError",
        "make_inventory TypeError",
        "parse_cli_arg AssertionError",
    ]


def test_initialise_sets_the_timeout_of_connections() -> None:
    state = State()
    pyinfra_patches.initialise(state, Inventory((["gpu-1"], {})), 7)  # type: ignore[no-untyped-call]
    assert state.initialised
    connector: Any = first(state).connector
    assert connector.make_paramiko_kwargs()["timeout"] == 7


def test_connected_host_is_current_and_active() -> None:
    state = State()
    pyinfra_patches.initialise(state, Inventory((["@fake/one"], QUICK)), 7)  # type: ignore[no-untyped-call]
    host = first(state)
    with pyinfra_patches.connected(host):
        assert host.connected
        assert ctx_host.get() is host  # type: ignore[no-untyped-call]
        assert host in state.active_hosts
        host.get_fact(Hostname)
    assert ctx_host.get() is not host  # type: ignore[no-untyped-call]


def test_on_all_returns_none_for_a_host_without_end() -> None:
    state = state_of("@fake/one", "@fake/two")

    def work(host: Host) -> str:
        if host.name == "@fake/two":
            gevent.sleep(30)
        return f"{host.name} {ctx_state.get() is state}"  # type: ignore[no-untyped-call]

    try:
        done = pyinfra_patches.on_all(state, list(state.inventory), work, 0.05)
    finally:
        state.pool.kill()
    assert done == {"@fake/one": "@fake/one True", "@fake/two": None}


def test_refuse_sudo_password_never_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connectors, "getpass", lambda _: "typed")  # put back after the test
    host = first(state_of("@fake/gpu-1"))
    line = OutputLine("stderr", "sudo: a password is required")

    def execute() -> tuple[int, CommandOutput]:
        return 1, CommandOutput([line])

    pyinfra_patches.refuse_sudo_password()
    with pytest.raises(PyinfraError, match="sudo -n true fails: it wants a password"):
        connectors.execute_command_with_sudo_retry(host, {}, execute)
    assert "prompted_sudo_password" not in host.connector_data


ASK = """
import builtins
from operations import pyinfra_patches
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import State
from pyinfra.context import ctx_state
from pyinfra_cli import cli

ctx_state.set(State())

def nobody():
    raise EOFError

def check():
    kept = cli._do_confirm
    try:
        pyinfra_patches.ask_only_a_terminal("nobody answers")
        for answer, expected in (("", True), ("no", False)):
            builtins.input = lambda: answer
            assert cli._do_confirm("go on?") is expected
        builtins.input = nobody
        try:
            cli._do_confirm("go on?")
        except PyinfraError as error:
            assert str(error) == "nobody answers"
    finally:
        cli._do_confirm = kept

check()
# pyinfra answers by itself, or asks by another function
for name, other in (("_do_confirm", lambda message: True), ("_do_confirm", None), ("_set_fail_prompts", None)):
    kept = getattr(cli, name)
    setattr(cli, name, other)
    if other is None:
        delattr(cli, name)
    try:
        check()
        cli._set_fail_prompts
    except (AssertionError, AttributeError) as error:
        print(name, type(error).__name__)
    setattr(cli, name, kept)
"""


def test_ask_only_a_terminal_makes_the_end_of_input_an_error() -> None:
    # in a process of its own: pyinfra_cli patches the standard library
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "_do_confirm AssertionError",
        "_do_confirm AttributeError",
        "_set_fail_prompts AttributeError",
    ]


# A run: who fails, and which hosts work at the same time


def test_follow_registers_the_callbacks_once() -> None:
    seen: list[object] = []

    class Handler(BaseStateCallback):
        @staticmethod
        def host_connect_error(state: State, host: Host, error: Exception) -> None:
            seen.append((host.name, str(error)))

    state = state_of("@fake/one")
    with ctx_state.use(state):
        assert pyinfra_patches.follow(Handler())
        assert not pyinfra_patches.follow(Handler())
    state.trigger_callbacks("host_connect_error", first(state), OSError("no"))
    assert seen == [("@fake/one", "no")]
    ours = {name: value for name, value in vars(rollout._Watch).items() if isinstance(value, staticmethod)}
    assert ours.keys() >= {"host_connect_error", "operation_start", "operation_host_error", "host_disconnect"}
    for name, value in ours.items():
        theirs = inspect.signature(getattr(BaseStateCallback, name)).parameters
        assert [*inspect.signature(value).parameters] == [*theirs], name


def test_print_no_traceback_of_silences_gevent() -> None:
    class Problem(Exception):
        pass

    def fails() -> None:
        raise Problem

    hub, printed = gevent.get_hub(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "print_exception", lambda *given: printed.append(given[1]))
        patch.setattr(hub, "NOT_ERROR", hub.NOT_ERROR)  # to be restored
        gevent.spawn(fails).join()
        assert printed == [Problem]
        pyinfra_patches.print_no_traceback_of(Problem)
        gevent.spawn(fails).join()
    assert printed == [Problem]


def test_leave_out_current_host_lets_the_others_go_on() -> None:
    state = state_of("@fake/one", "@fake/two")
    one, two = state.inventory
    with ctx_state.use(state):
        for host, left in ((one, {two}), (one, {two}), (two, set())):
            with ctx_host.use(host):
                pyinfra_patches.leave_out_current_host()
            assert state.active_hosts == left
    assert state.failed_hosts == {one, two}


def test_leave_out_current_host_keeps_the_limit_of_failures() -> None:
    state = state_of("@fake/one", "@fake/two")
    state.config.FAIL_PERCENT = 0
    with ctx_state.use(state), ctx_host.use(first(state)), pytest.raises(PyinfraError, match="Over 0%"):
        pyinfra_patches.leave_out_current_host()


def test_mark_failed_decides_the_exit_code() -> None:
    state = state_of("@fake/one")
    pyinfra_patches.mark_failed(state, first(state))
    assert pyinfra_patches.failed_hosts(state) == {"@fake/one"}
    [body] = re.findall(r"^def _exit\(\).*?^def ", source_of("cli.py"), re.DOTALL | re.MULTILINE)
    assert "state.failed_hosts" in body and "sys.exit(1)" in body


def test_failed_hosts_are_those_pyinfra_failed() -> None:
    state = state_of("@fake/one", "@fake/two")
    assert pyinfra_patches.failed_hosts(state) == set()
    state.fail_hosts({first(state)})  # type: ignore[no-untyped-call]
    assert pyinfra_patches.failed_hosts(state) == {"@fake/one"}


def test_active_hosts_are_those_that_have_not_failed() -> None:
    state = state_of("@fake/one", "@fake/two")
    assert pyinfra_patches.active_hosts(state) == {"@fake/one", "@fake/two"}
    state.fail_hosts({first(state)})  # type: ignore[no-untyped-call]
    assert pyinfra_patches.active_hosts(state) == {"@fake/two"}


def test_hosts_of_run_follow_the_limit() -> None:
    state = State()
    inventory = Inventory((["@fake/one", "@fake/two"], QUICK))  # type: ignore[no-untyped-call]
    state.init(inventory, Config())  # type: ignore[no-untyped-call]
    assert pyinfra_patches.hosts_of_run(state) == {"@fake/one", "@fake/two"}
    state.init(inventory, Config(), initial_limit=[first(state)])  # type: ignore[no-untyped-call]
    assert pyinfra_patches.hosts_of_run(state) == {"@fake/one"}


@operation()
def waits(until: Callable[[str], bool]) -> Generator[FunctionCommand, None, None]:
    """Succeeds where `until` does."""

    def call(state: State, host: Host) -> bool:
        return until(host.name)

    yield FunctionCommand(call, (), {})


def ran(state: State, called: Any, handler: BaseStateCallback | None = None, **arguments: Any) -> set[str]:
    """Run one operation on all hosts; those that failed."""
    if handler is not None:
        state.add_callback_handler(handler)  # type: ignore[no-untyped-call]
    add_op(state, called, **arguments)
    try:
        run_ops(state)
    except PyinfraError:
        assert state.failed_hosts
    return {host.name for host in state.failed_hosts}


def test_names_of_operation_are_given_to_its_callbacks() -> None:
    seen: list[set[str]] = []

    class Handler(BaseStateCallback):
        @staticmethod
        def operation_start(state: State, op_hash: str) -> None:
            seen.append(pyinfra_patches.names_of_operation(state, op_hash))

    assert not ran(state_of("@fake/one"), waits, Handler(), name="Wait", until=lambda _: True)
    assert seen == [{"Wait"}]


def meet(hosts: int, handler: BaseStateCallback | None) -> set[str]:
    """Hosts that all wait for each other, where pyinfra may work on one at a time; those that waited in vain."""
    there: set[str] = set()

    def until(name: str) -> bool:
        there.add(name)
        for _ in range(20):
            if len(there) == hosts:
                return True
            gevent.sleep(0.005)
        return False

    state = state_of(*(f"@fake/{number}" for number in range(hosts)), parallel=1)
    return ran(state, waits, handler, name="Meet", until=until)


def test_start_together_lets_hosts_wait_for_each_other() -> None:
    class Handler(BaseStateCallback):
        @staticmethod
        def operation_start(state: State, op_hash: str) -> None:
            pyinfra_patches.start_together(state, op_hash, 3)

    assert meet(3, None)
    assert not meet(3, Handler())


def test_operation_of_operations_runs_others() -> None:
    called: list[str] = []

    def inner(name: str) -> bool:
        called.append(name)
        return True

    def outer(state: State, host: Host) -> bool:
        waits(name="Inner", until=inner)
        return True

    def calls() -> Generator[FunctionCommand, None, None]:
        yield FunctionCommand(outer, (), {})

    assert ran(state_of("@fake/one"), operation()(calls), name="Outer") == {"@fake/one"}
    assert called == []
    assert not ran(state_of("@fake/one"), pyinfra_patches.operation_of_operations(calls), name="Outer")
    assert called == ["@fake/one"]


# A host and its connection


def test_data_of_merges_all_sources() -> None:
    inventory = Inventory(  # type: ignore[no-untyped-call]
        ([("a", {"x": 1})], {"x": 0, "y": 0}), override_data={"z": 3}, some=(["a"], {"y": 2})
    )
    state = State()
    state.init(inventory, Config())  # type: ignore[no-untyped-call]
    assert pyinfra_patches.data_of(first(state)) == {"x": 1, "y": 2, "z": 3}


def test_transport_of_is_that_of_the_connection() -> None:
    assert pyinfra_patches.transport_of(first(state_of("@fake/one"))) is None
    host = first(state_of("gpu-1"))
    assert pyinfra_patches.transport_of(host) is None
    marker = object()

    class Client:
        def connect(self, *_: object, **__: object) -> None: ...

        def get_transport(self) -> object:
            return marker

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyinfra.connectors.ssh.SSHClient", Client)
        host.connector.connect()
    assert pyinfra_patches.transport_of(host) is marker


def test_fail_where_a_connection_closes_fails_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "run_shell_command", Host.run_shell_command)  # put back after the test
    pyinfra_patches.fail_where_a_connection_closes()
    state = state_of("@fake/one", "@fake/two")
    one, two = (state.inventory.get_host(name) for name in ("@fake/one", "@fake/two"))

    def closed(*_: object, **__: object) -> None:
        raise EOFError

    monkeypatch.setattr(one.connector, "run_shell_command", closed)
    with ctx_state.use(state):
        for host in (one, two):
            with ctx_host.use(host):
                host.get_fact(Hostname)
    assert state.failed_hosts == {one}


def test_before_each_command_sees_operations_and_facts() -> None:
    state = state_of("@fake/one")
    host = first(state)
    pyinfra_patches.before_each_command(host, lambda command: StringCommand("guard;", command))
    StringCommand("echo", "a").execute(state, host, {})
    host.run_shell_command("echo b", _sudo=True)
    host.get_fact(Hostname)
    connector: Any = host.connector
    sent = connector.executed_commands
    assert len(sent) == 3
    assert all("guard; " in command for command in sent), sent

    def refuse(command: StringCommand) -> StringCommand:
        raise paramiko.SSHException("no")

    pyinfra_patches.before_each_command(host, refuse)
    with pytest.raises(paramiko.SSHException, match="no"):
        host.run_shell_command("echo c")
    assert len(sent) == 3


def test_reconnected_host_calls_no_callback() -> None:
    state = state_of("gpu-1")
    host = first(state)
    calls: list[str] = []

    class Client:
        def connect(self, *_: object, **__: object) -> None:
            calls.append("connect")

    class Watch(BaseStateCallback):
        @staticmethod
        def host_disconnect(state: State, host: Host) -> None:
            calls.append("callback")

    state.add_callback_handler(Watch())  # type: ignore[no-untyped-call]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyinfra.connectors.ssh.SSHClient", Client)
        host.connector.connect()
        pyinfra_patches.reconnected(host)
    assert calls == ["connect", "connect"]


def test_end_connection_tells_waiters_why() -> None:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        transport = paramiko.Transport(ours)
        channel: Any = paramiko.Channel(1)
        channel._set_transport(transport)
        pyinfra_patches.end_connection(transport, "it is gone")
        channel.event.set()  # what the end of a transport does
        with pytest.raises(paramiko.SSHException, match="it is gone"):
            channel._wait_for_event()
        assert not transport.is_active()


# The tests above fail where the library changes


def removed(owner: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.delattr(owner, name)


def other(owner: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(owner, name, value)


def edited(old: str, new: str) -> Callable[[pytest.MonkeyPatch], None]:
    """pyinfra's command with another text."""

    def change(patch: pytest.MonkeyPatch) -> None:
        real = source_of
        assert old in real("cli.py")
        patch.setitem(globals(), "source_of", lambda name: real(name).replace(old, new))

    return change


def _past_the_host(self: StringCommand, state: State, host: Host, arguments: Any) -> Any:
    connector: Any = host.connector
    return connector.run_shell_command(self)


def _copy_of_meta(state: State, op_hash: str) -> Any:
    from copy import deepcopy

    return deepcopy(state.op_meta[op_hash])


class _PoolOfThreads:
    """One without gevent's `spawn`."""

    def __init__(self, size: int) -> None:
        self.size = size

    def kill(self) -> None: ...


def _raises_end_of_file(channel: object) -> None:
    raise EOFError


CHANGES: list[tuple[Callable[[], None], Callable[[pytest.MonkeyPatch], None]]] = [
    (test_command_line_returns_pyinfra_options, other(click, "get_current_context", lambda: None)),
    (test_command_line_returns_pyinfra_options, edited("    no_wait: bool,", "    dont_wait: bool,")),
    (test_before_connecting_calls_check_then_begun, removed(State, "init")),
    (test_before_connecting_calls_check_then_begun, edited("    state.init(", "    state.start(")),
    (test_before_connecting_calls_check_then_begun, edited("exec_file(config_filename)", "pass")),
    (test_before_merging_gets_the_lists_by_name, removed(Inventory, "make_hosts_and_groups")),
    (
        test_load_private_key_reads_and_never_asks,
        other(pyinfra_patches, "load_key_with_certificate", lambda key_filename: None),
    ),
    (
        test_initialise_sets_the_timeout_of_connections,
        other(SSHConnector, "make_paramiko_kwargs", lambda _: {}),
    ),
    (test_connected_host_is_current_and_active, removed(State, "activate_host")),
    (test_connected_host_is_current_and_active, other(Host, "connect", lambda self, reason=None: None)),
    (test_on_all_returns_none_for_a_host_without_end, other(pyinfra.api.state, "Pool", _PoolOfThreads)),
    (test_follow_registers_the_callbacks_once, removed(State, "add_callback_handler")),
    (
        test_follow_registers_the_callbacks_once,
        other(BaseStateCallback, "operation_start", staticmethod(lambda state, op_hash, hosts: None)),
    ),
    (
        test_print_no_traceback_of_silences_gevent,
        other(Hub, "handle_error", lambda self, *given: self.print_exception(*given)),
    ),
    (test_leave_out_current_host_lets_the_others_go_on, removed(State, "fail_hosts")),
    (
        test_leave_out_current_host_keeps_the_limit_of_failures,
        other(State, "fail_hosts", lambda self, hosts: self.failed_hosts.update(hosts)),
    ),
    (test_mark_failed_decides_the_exit_code, edited("state.failed_hosts", "state.lost_hosts")),
    (
        test_failed_hosts_are_those_pyinfra_failed,
        other(State, "fail_hosts", lambda self, hosts: self.active_hosts.difference_update(hosts)),
    ),
    (
        test_active_hosts_are_those_that_have_not_failed,
        other(State, "fail_hosts", lambda self, hosts: self.failed_hosts.update(hosts)),
    ),
    (test_hosts_of_run_follow_the_limit, removed(State, "is_host_in_limit")),
    (test_names_of_operation_are_given_to_its_callbacks, removed(State, "get_op_meta")),
    (test_start_together_lets_hosts_wait_for_each_other, other(State, "get_op_meta", _copy_of_meta)),
    (
        test_operation_of_operations_runs_others,
        other(pyinfra_patches, "operation", lambda is_idempotent=True: None),
    ),
    (test_data_of_merges_all_sources, removed(HostData, "dict")),
    (test_transport_of_is_that_of_the_connection, other(SSHConnector, "_connect", lambda self: None)),
    (test_before_each_command_sees_operations_and_facts, other(StringCommand, "execute", _past_the_host)),
    (
        test_end_connection_tells_waiters_why,
        other(paramiko.Channel, "_wait_for_event", _raises_end_of_file),
    ),
]


@pytest.mark.parametrize(
    ("check", "change"),
    CHANGES,
    ids=[f"{number}-{check.__name__[5:40]}" for number, (check, _) in enumerate(CHANGES)],
)
def test_check_notices_a_change(
    monkeypatch: pytest.MonkeyPatch, check: Callable[[], None], change: Callable[[pytest.MonkeyPatch], None]
) -> None:
    change(monkeypatch)
    with pytest.raises((Exception, pytest.fail.Exception)):
        check()


def test_every_function_has_a_check_and_a_question_for_upstream() -> None:
    functions = {
        name: value
        for name, value in vars(pyinfra_patches).items()
        if inspect.isfunction(value) and value.__module__ == pyinfra_patches.__name__
    }
    assert len(functions) > 20
    tests = [name for name, value in globals().items() if name.startswith("test_") and callable(value)]
    for name, function in functions.items():
        assert any(name in test for test in tests), name
        text = " ".join((inspect.getdoc(function) or "").split())
        assert "Relies on " in text and "Upstream: " in text, name
