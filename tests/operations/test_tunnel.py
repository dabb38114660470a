"""A port of a host without sshd's forwarding: what bash copies between standard input, output and a TCP connection."""

from __future__ import annotations

import os
import socket
import subprocess
import threading

from operations.remote.tunnel import through_bash


def server(answer: bytes) -> tuple[socket.socket, list[bytes]]:
    """Takes one connection, reads what is sent until it says END, answers, and leaves."""
    listening = socket.create_server(("127.0.0.1", 0))
    received: list[bytes] = []

    def serve() -> None:
        connection, _ = listening.accept()
        while not b"".join(received).endswith(b"END"):
            data = connection.recv(65536)
            if not data:
                break
            received.append(data)
        connection.sendall(answer)
        connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return listening, received


def test_tunnel_carries_every_byte_both_ways() -> None:
    sent, answer = os.urandom(300_000) + b"END", os.urandom(200_000)
    listening, received = server(answer)
    with listening:
        command = through_bash("127.0.0.1", listening.getsockname()[1])
        process = subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(sent)
        process.stdin.flush()
        # the server's end is the end, although nobody closed standard input
        assert process.stdout.read() == answer
        process.stdin.close()
        process.wait(timeout=10)
    assert b"".join(received) == sent


def test_tunnel_ends_when_the_client_disconnects() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    with listening:
        command = through_bash("127.0.0.1", listening.getsockname()[1])
        process = subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        connection, _ = listening.accept()
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=10)
        connection.settimeout(10)
        assert connection.recv(1) == b"", "and the server is told"
        connection.close()
        assert process.stdout is not None
        process.stdout.close()


def test_tunnel_fails_on_a_closed_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = subprocess.run(
        ["sh", "-c", through_bash("127.0.0.1", port)], capture_output=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode != 0
    assert done.stdout == b""
