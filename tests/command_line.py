"""Command lines of this project, run in processes that are forked from one that has imported everything already.

A test of `pyinfra INVENTORY deploy.py` spends a second in imports before it does anything. `run` gives the same process
without that second: a server imports pyinfra and operations once, in the order in which pyinfra's own script does; for
each command it forks, and the child takes the command's directory, variables, arguments, input and output, and then runs
pyinfra's own script, or the module that `python -m` names.

What is imported once must not depend on what a command is given. The server writes down each variable that is read while
it imports; a command for which one of them differs gets a server of its own. Tests of signals begin ordinary processes,
and tests/deploy/test_command_line.py compares both kinds.

    python tests/command_line.py SOCKET    # the server: one request a line, on an inherited socket
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __name__ != "__main__":  # the server imports no more than pyinfra's own script has
    import select
    import signal
    import socket
    import subprocess
    import tempfile
    import time

PROJECT = Path(__file__).resolve().parents[1]
PYINFRA = Path(sys.executable).parent / "pyinfra"
LIMIT_S = 60

# read before any Python runs, or by libraries in C: no one sees them being read
_READ_BY_C = ("PYTHON", "LC_", "LANG", "TZ", "GEVENT", "LIBEV", "LD_", "OPENSSL", "SSL_", "MALLOC_", "LIBUV")

# What commands import. Not oci: it changes the filters of warnings, and reads a file below HOME.
_IMPORTED = [
    "pyinfra_cli.main",
    "operations.inputs",
    *(
        f"operations.{name}"
        for name in [
            "container_runtime",
            "convergence",
            "database",
            "engine",
            "front",
            "gateway",
            "lock",
            "model_repository",
            "monitoring",
            "network",
            "packages",
            "release",
            "rollout",
            "selinux",
            "serving_image",
            "storage",
            "swap",
            "triton_service",
            "weights",
            "intake.oci_instances",
        ]
    ),
    "pyinfra.connectors.fake",
]
# run as __main__, which must not be imported before
_NOT_IMPORTED = ("operations.preflight", "operations.plan.__main__")


# The tests' side


def run(
    argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str], answers: str = "", limit_s: float = LIMIT_S
) -> subprocess.CompletedProcess[str]:
    """
    Run pyinfra's script, or `python -m MODULE`, and wait for its end.

    + argv: the command line, as `subprocess.run` takes it
    + answers: its standard input

    Raises TimeoutExpired, after the process was killed.
    """
    words = [str(word) for word in argv]
    assert words[0] == str(PYINFRA) or words[:2] == [sys.executable, "-m"], words
    server = next((server for server in _servers if server.fits(env)), None)
    if server is None:
        server = _Server(env)
        _servers.append(server)
    return server.run(words, cwd, env, answers, limit_s)


def run_apart(
    argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str], answers: str = "", limit_s: float = LIMIT_S
) -> subprocess.CompletedProcess[str]:
    """The same in an ordinary process."""
    return subprocess.run(
        argv, input=answers, capture_output=True, text=True, timeout=limit_s, cwd=cwd, env=env
    )


class _Server:
    """One server, and the variables that it was started with."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = dict(env)
        ours, its = socket.socketpair()
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server lives
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(its.fileno())],
            cwd=PROJECT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            pass_fds=[its.fileno()],
        )
        its.close()
        self.socket = ours
        self.waiting = b""
        atexit.register(self.end)
        self.read: list[str] = json.loads(self._answer(LIMIT_S))

    def fits(self, env: Mapping[str, str]) -> bool:
        """Whether what the server has read while it imported is the same for this command."""
        read = {*self.read, *(name for name in {*self.env, *env} if name.startswith(_READ_BY_C))}
        return all(self.env.get(name) == env.get(name) for name in read)

    def run(
        self, argv: list[str], cwd: Path, env: Mapping[str, str], answers: str, limit_s: float
    ) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, name) for name in ("in", "out", "err")]
            files[0].write_text(answers, encoding="utf-8")
            request = {
                "argv": argv,
                "cwd": str(cwd),
                "env": dict(env),
                "files": [str(file) for file in files],
            }
            self.socket.sendall(f"{json.dumps(request)}\n".encode())
            process = int(self._answer(limit_s))
            try:
                code = int(self._answer(limit_s))
            except TimeoutError:
                os.kill(process, signal.SIGKILL)
                self._answer(LIMIT_S)
                raise subprocess.TimeoutExpired(argv, limit_s) from None
            out, err = (file.read_text("utf-8") for file in files[1:])
        return subprocess.CompletedProcess(argv, code, out, err)

    def _answer(self, limit_s: float) -> str:
        until = time.monotonic() + limit_s
        while b"\n" not in self.waiting:
            if not select.select([self.socket], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError
            try:
                received = self.socket.recv(1 << 16)
            except ConnectionResetError:
                received = b""
            if not received:
                self.errors.seek(0)
                said = self.errors.read().decode(errors="replace")
                raise AssertionError(
                    f"tests/command_line.py: found its server ended, expected an answer:\n{said}"
                )
            self.waiting += received
        line, _, self.waiting = self.waiting.partition(b"\n")
        return line.decode()

    def end(self) -> None:
        self.socket.close()
        self.process.wait()


_servers: list[_Server] = []


# The server's side


class _Noted(dict[str, None]):
    """The names of the variables that are read while modules are imported."""

    def __enter__(self) -> _Noted:
        kind: Any = type(os.environ)
        self.plain = kind.__getitem__

        def noted(environment: Any, name: Any) -> Any:
            self[str(name)] = None
            return self.plain(environment, name)

        kind.__getitem__ = noted
        return self

    def __exit__(self, *_: object) -> None:
        kind: Any = type(os.environ)
        kind.__getitem__ = self.plain


def _serve(socket_number: int) -> dict[str, Any]:
    """Import, and fork for each request; returns in the child, with its request."""
    os.set_blocking(socket_number, True)  # it is not where pytest has imported gevent
    sys.path[0] = str(PROJECT)
    with _Noted() as read:
        for name in _IMPORTED:
            importlib.import_module(name)
    assert not {*_NOT_IMPORTED} & {*sys.modules}, "what is run as __main__ must not be imported before"
    # which packages there are does not change; pyinfra reads the metadata of all of them four times a command
    connectors: Any = importlib.import_module("pyinfra.api.connectors")
    connectors.entry_points = functools.cache(connectors.entry_points)
    connectors.get_all_connectors()
    gc.freeze()
    os.write(socket_number, f"{json.dumps(list(read))}\n".encode())
    waiting = b""
    while True:
        while b"\n" not in waiting:
            received = os.read(socket_number, 1 << 20)
            if not received:
                os._exit(0)
            waiting += received
        line, _, waiting = waiting.partition(b"\n")
        process = os.fork()
        if not process:
            os.close(socket_number)
            request: dict[str, Any] = json.loads(line)
            return request
        os.write(socket_number, f"{process}\n".encode())
        _, status = os.waitpid(process, 0)
        os.write(socket_number, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(request: Mapping[str, Any]) -> None:
    """Take a command's directory, variables, arguments, input and output."""
    for number, (path, flags) in enumerate(
        zip(request["files"], (os.O_RDONLY, *2 * [os.O_WRONLY | os.O_CREAT | os.O_APPEND]), strict=True)
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])


def _run(argv: list[str]) -> None:
    """What the interpreter does with its command line."""
    if argv[1:2] == ["-m"] and argv[0] == sys.executable:
        sys.argv = argv[2:]
        sys.path[0] = os.getcwd()
        _check_operations(sys.path[0])
        runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        sys.path[0] = str(Path(argv[0]).resolve().parent)
        _check_operations(os.getcwd())
        runpy.run_path(argv[0], run_name="__main__")


def _check_operations(cwd: str) -> None:
    """The imported operations are those that the command would find."""
    ours = Path(cwd, "operations").resolve()
    assert ours == PROJECT / "operations", f"{ours} is not what the server has imported"


def _end(ended: SystemExit | None) -> None:
    """
    What the interpreter does at its end, but for the taking apart of every module: a third of a command's time.

    What else ends it, an exception or a signal, is left to the interpreter.
    """
    code = ended.code if ended else 0
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    _request = _serve(int(sys.argv[1]))
    _become(_request)
    try:
        _run(_request["argv"])
    except SystemExit as _ended:
        _end(_ended)
    _end(None)
