"""Everything that patches pyinfra, gevent, click or paramiko, or uses what they do not promise to keep.

Read in pyinfra 3.10, gevent 26.9, click 8.5 and paramiko 4.0. Each function does one thing; the callers decide when. Each
docstring ends with the question for upstream, and each function has a test in tests/unit/test_pyinfra_patches.py that
fails when the library no longer offers what the function relies on. pyinfra added the callbacks `host_connect_error`
and `host_before_connect` on request: https://github.com/pyinfra-dev/pyinfra/issues/436.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click
import gevent
from gevent.pool import Pool
from paramiko import SSHException
from pyinfra.api.command import StringCommand
from pyinfra.api.config import Config
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.operation import operation
from pyinfra.api.state import BaseStateCallback, State
from pyinfra.connectors import util as connectors
from pyinfra.connectors.ssh_util import load_key_with_certificate
from pyinfra.context import ctx_host, ctx_state

if TYPE_CHECKING:
    from pyinfra.api.arguments_typed import PyinfraOperation

T = TypeVar("T")
P = ParamSpec("P")


# Before a connection is opened


def command_line() -> Mapping[str, Any]:
    """
    The options of pyinfra's command line, by pyinfra's own names; empty outside its command.

    Relies on pyinfra being a click command that reads config.py while it runs, and on its names of options.
    Upstream: may config.py read the parsed options, for example as `pyinfra.context.options`?
    """
    context = click.get_current_context(silent=True)
    return context.params if context is not None else {}


def before_connecting(check: Callable[[Inventory], None], begun: Callable[[], None]) -> None:
    """
    Call `check` when pyinfra has read the inventory and before it connects, and `begun` when its state is ready.

    + check: may end the process

    Relies on `_main` of pyinfra_cli/cli.py: it reads config.py, then the inventory, then calls `state.init`, then connects.
    Upstream: a callback between reading the inventory and connecting, which may refuse; the callbacks of a state can only
    be registered after `state.init`, and `host_before_connect` runs once a host, in parallel.
    """
    state = ctx_state.get()  # type: ignore[no-untyped-call]
    begin = state.init

    def checked(inventory: Inventory, *arguments: Any, **keywords: Any) -> None:
        check(inventory)
        begin(inventory, *arguments, **keywords)
        begun()

    state.init = checked


def before_merging(check: Callable[[Mapping[str, Sequence[object]]], None]) -> None:
    """
    Call `check` with the lists of an inventory, by name, before pyinfra merges them: a later entry of a host wins silently.

    Relies on `Inventory.make_hosts_and_groups(names, groups)`, which the constructor calls.
    Upstream: could pyinfra refuse, or report, a host that two lists give different data?
    """
    merge = Inventory.make_hosts_and_groups

    def checked(inventory: Inventory, names: Any, groups: Any) -> None:
        check({"all": names, **{name: group for name, (group, _) in groups.items()}})
        merge(inventory, names, groups)

    Inventory.make_hosts_and_groups = checked  # type: ignore[method-assign, assignment]


def load_private_key(path: Path) -> None:
    """
    Read an SSH key as pyinfra will, without asking for a passphrase. Raises whatever pyinfra or paramiko raises.

    Relies on `load_key_with_certificate(allow_prompt=False)` of pyinfra/connectors/ssh_util.py.
    Upstream: could a run check the keys of all hosts before it connects to the first?
    """
    load_key_with_certificate(str(path), allow_prompt=False)


# pyinfra's inventory, in a program of ours


def read_inventory(path: str, data: Mapping[str, Any], group_data: Sequence[str]) -> tuple[State, Inventory]:
    """
    A new state, and the inventory as pyinfra's command reads it. Raises whatever the inventory's own Python raises.

    + data: as --data gives them
    + group_data: further directories

    Relies on `make_inventory` of pyinfra_cli/inventory.py, and on the state being current while it runs.
    Upstream: may pyinfra.api offer the reader of inventory files and group data?
    """
    # imported here: pyinfra_cli patches the standard library for gevent
    from pyinfra_cli.inventory import make_inventory  # type: ignore[import-untyped]

    state = State()
    with ctx_state.use(state):
        inventory: Inventory = make_inventory(
            path, override_data=dict(data), cwd=str(Path.cwd()), group_data_directories=list(group_data)
        )
    return state, inventory


def value_of_option(text: str) -> Any:
    """
    What pyinfra makes of VALUE in `--data KEY=VALUE`.

    Relies on `parse_cli_arg` of pyinfra_cli/util.py.
    Upstream: may pyinfra.api offer it, together with the reader of inventories?
    """
    from pyinfra_cli.util import parse_cli_arg  # type: ignore[import-untyped]

    return parse_cli_arg(text)


def initialise(state: State, inventory: Inventory, connect_seconds: int) -> None:
    """
    Make a state ready to connect.

    Relies on `Config.CONNECT_TIMEOUT` and `State.init`.
    Upstream: none; the API's documentation shows both.
    """
    config = Config()  # type: ignore[no-untyped-call]
    config.CONNECT_TIMEOUT = connect_seconds
    state.init(inventory, config)


@contextmanager
def connected(host: Host) -> Iterator[None]:
    """
    The host is connected, current and active while the block runs, so that facts can be read. Raises ConnectError.

    The caller disconnects it. Relies on `Host.connect(show_errors=, raise_exceptions=)`, `State.activate_host` and
    `ctx_host`.
    Upstream: could `connect_all` return which hosts failed and why, in place of raising when none is left?
    """
    with ctx_state.use(host.state), ctx_host.use(host):
        host.connect(show_errors=False, raise_exceptions=True)
        # facts need active hosts, as after pyinfra's own connecting
        host.state.activate_host(host)
        yield


def on_all(
    state: State, hosts: Sequence[Host], work: Callable[[Host], T], seconds: float
) -> dict[str, T | None]:
    """
    Run `work` on all hosts at once; by host, what it returned, or None where it did not end in time.

    Relies on `State.pool`, a pool of gevent, and on `ctx_state`.
    Upstream: a way to run a function on all hosts of a state, with a timeout for each.
    """
    with ctx_state.use(state):
        workers = {each.name: state.pool.spawn(work, each) for each in hosts}
        gevent.joinall(list(workers.values()), timeout=seconds)
    return {name: worker.value for name, worker in workers.items()}


def refuse_sudo_password() -> None:
    """
    Let a command fail on a host where sudo wants a password, in place of a question on this terminal for each host.

    With a password, pyinfra would also write a file on the host. Relies on `getpass` in pyinfra/connectors/util.py.
    Upstream: an option that never asks, as `sudo -n` has it.
    """

    def refused(*_: Any, **__: Any) -> str:
        raise PyinfraError("sudo -n true fails: it wants a password, or the login user may not use it")

    connectors.getpass = refused


# A run: who fails, and which hosts work at the same time


class Unanswered(PyinfraError):
    """A question of pyinfra's that nobody could answer."""


def ask_only_a_terminal(problem: str) -> None:
    """
    A question of pyinfra's that nobody can answer ends the run with exit code 1, and this in one line.

    pyinfra asks whether to go on where -y is not given, and lets `input` fail with a traceback where its standard input is at its
    end. Relies on `_do_confirm` of pyinfra_cli/cli.py.
    Upstream: answer a question without a terminal with no, and say so.
    """
    from pyinfra_cli import cli  # type: ignore[import-untyped]

    asked = cli._do_confirm

    def confirm(message: str) -> bool:
        try:
            answer: bool = asked(message)
        except EOFError:
            print(file=sys.stderr)
            raise Unanswered(problem) from None
        return answer

    cli._do_confirm = confirm


def follow(handler: BaseStateCallback) -> bool:
    """
    Register the callbacks of the current run; False where one of this class is registered already.

    Relies on `State.callback_handlers` and `State.add_callback_handler`.
    Upstream: may a deploy file register callbacks for a run of the command line?
    """
    state = ctx_state.get()  # type: ignore[no-untyped-call]
    if any(isinstance(each, type(handler)) for each in state.callback_handlers):
        return False
    state.add_callback_handler(handler)
    return True


def print_no_traceback_of(kind: type[BaseException]) -> None:
    """
    Let gevent end a greenlet with such an error without printing its traceback.

    pyinfra raises PyinfraError in a greenlet when a fact fails on the last host (`get_fact` and `fail_hosts`), and prints
    the error itself. Relies on `Hub.NOT_ERROR`, which gevent documents for subclasses of its hub.
    Upstream: could pyinfra catch that error in the greenlet?
    """
    gevent.get_hub().NOT_ERROR += (kind,)


def leave_out_current_host() -> None:
    """
    The current host fails, and the run goes on with the others; without others pyinfra ends it with exit code 1.

    Relies on `State.fail_hosts`, `failed_hosts` and `active_hosts`, and on `ctx_host`.
    Upstream: a method of Host that takes it out of the run, as `host.fail("why")`.
    """
    left_out = ctx_host.get()  # type: ignore[no-untyped-call]
    state = ctx_state.get()  # type: ignore[no-untyped-call]
    if left_out in state.failed_hosts:
        return  # pyinfra has done so itself, for a fact that failed
    try:
        state.fail_hosts({left_out})
    except PyinfraError:
        if state.active_hosts:
            raise


def mark_failed(state: State, host: Host) -> None:
    """
    The run ends with exit code 1 because of this host.

    Relies on `State.failed_hosts` and on `_exit` of pyinfra_cli/cli.py, which reads it. With --no-wait pyinfra adds no host
    to it (`_run_no_wait_ops`), and ends with 0 whatever happens.
    Upstream: let --no-wait fail the hosts that failed.
    """
    state.failed_hosts.add(host)


def leave_out(state: State, host: Host) -> None:
    """
    The run goes on without this host, and ends with exit code 1 because of it; call it while an operation of another one runs.

    Relies on `State.failed_hosts` and `State.active_hosts`. `State.fail_hosts` would end the run where no host is left, which
    pyinfra itself does after the operation.
    Upstream: as for `leave_out_current_host`.
    """
    mark_failed(state, host)
    state.active_hosts.discard(host)


def failed_hosts(state: State) -> set[str]:
    """
    The names of the hosts that have failed.

    Relies on `State.failed_hosts`.
    Upstream: a property of Host, as `host.connected` is.
    """
    return {each.name for each in state.failed_hosts}


def active_hosts(state: State) -> set[str]:
    """
    The names of the connected hosts that have not failed.

    Relies on `State.active_hosts`.
    Upstream: as for `failed_hosts`.
    """
    return {each.name for each in state.active_hosts}


def hosts_of_run(state: State) -> set[str]:
    """
    The names of the hosts that --limit and --exclude leave.

    Relies on `State.is_host_in_limit`.
    Upstream: a method of Inventory, beside `get_active_hosts`.
    """
    return {each.name for each in state.inventory if state.is_host_in_limit(each)}


def names_of_operation(state: State, op_hash: str) -> set[str]:
    """
    The names of an operation, each with the names of the deploys that it is in.

    Relies on `State.get_op_meta` and `StateOperationMeta.names`.
    Upstream: let callbacks of operations get the names beside the hash.
    """
    return state.get_op_meta(op_hash).names


def start_together(state: State, op_hash: str, hosts: int) -> None:
    """
    Start an operation on all active hosts at the same time, whatever --parallel says; call it from `operation_start`.

    + hosts: how many wait for each other: each holds a place of the pool

    pyinfra would visit hosts in batches without an order, and a host could wait for one of a later batch. Relies on
    `_run_single_op` of pyinfra/api/operations.py, which reads `global_arguments["_parallel"]` and `state.pool` after it
    has called `operation_start`.
    Upstream: an order for --serial, and an end of it at the first failure; then this function and its caller go.
    """
    state.get_op_meta(op_hash).global_arguments["_parallel"] = 0
    if state.pool.size is not None and state.pool.size < hosts:
        state.pool = Pool(hosts)


def operation_of_operations(function: Callable[P, Generator[Any, None, None]]) -> PyinfraOperation[P]:
    """
    As `@operation()`, for one whose function calls other operations when it runs.

    Relies on `operation(_set_in_op=False)`, which pyinfra uses for its own `python.call`.
    Upstream: make that argument public.
    """
    return operation(_set_in_op=False)(function)


# A host and its connection


def data_of(host: Host) -> dict[str, Any]:
    """
    A host's data from all sources, as pyinfra merges them.

    Relies on `HostData.dict`, which has no types.
    Upstream: annotate it.
    """
    data: dict[str, Any] = host.data.dict()  # type: ignore[no-untyped-call]
    return data


def transport_of(host: Host) -> Any:
    """
    The paramiko transport of a host's connection, for another channel in it; None for @local and the like.

    Also of a connection that was given up: then it knows the key that the host offered. Relies on `SSHConnector.client`.
    Upstream: a method of the SSH connector that opens a channel; and the offered key in its ConnectError.
    """
    client: Any = getattr(host.connector, "client", None)
    return client.get_transport() if client is not None else None


def reconnected(host: Host) -> None:
    """
    A host whose connection has ended, as by a reboot, is connected again. Raises ConnectError.

    Not `Host.connect` and `Host.disconnect`, whose callbacks say that a host is unreachable, or that its run has ended. Relies on
    `connect` and `disconnect` of a host's connector.
    Upstream: the same, which `server.reboot` does with these callbacks.
    """
    host.connector.disconnect()
    host.connector.connect()


def fail_where_a_connection_closes() -> None:
    """
    A command whose connection is closed fails on its host alone, as one of a connection that is lost does.

    paramiko raises then what its transport ended with, often EOFError, which pyinfra's facts do not catch: the run of all hosts
    ended with a traceback. Relies on pyinfra catching SSHException from `Host.run_shell_command`, for facts (`_get_fact`) and
    operations (`_run_shell_command`).
    Upstream: let facts catch EOFError as connections do (`SSHConnector.connect` catches it).
    """
    run = Host.run_shell_command

    def lost_if_closed(self: Host, *arguments: Any, **named: Any) -> Any:
        try:
            return run(self, *arguments, **named)
        except EOFError:
            raise SSHException("the connection was closed") from None

    Host.run_shell_command = lost_if_closed  # type: ignore[method-assign]


def before_each_command(host: Host, change: Callable[[StringCommand], StringCommand]) -> None:
    """
    Let `change` replace, or refuse by an exception, each shell command of the run on this host from now on.

    Relies on pyinfra calling `Host.run_shell_command(command, ...)` for operations and facts alike (`StringCommand.execute`
    and `_get_fact`).
    Upstream: a callback before each command, which may refuse it.
    """
    run = host.run_shell_command

    def changed(command: str | StringCommand, *arguments: Any, **named: Any) -> Any:
        text = command if isinstance(command, StringCommand) else StringCommand(command)
        return run(change(text), *arguments, **named)

    host.run_shell_command = changed  # type: ignore[method-assign]


def end_connection(transport: Any, problem: str) -> None:
    """
    Close a connection; whatever waits for it gets an SSHException that says why.

    pyinfra's facts catch SSHException, and not the EOFError of a connection that was closed. Relies on
    `Transport.get_exception`, which paramiko's channels ask for the error that they raise.
    Upstream: let facts catch EOFError as connections do (`SSHConnector.connect` catches it).
    """
    transport.get_exception = lambda: SSHException(problem)
    transport.close()
