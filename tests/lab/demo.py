"""`make demo`: a bare lab host, the one command, and the model's answer.

Boots a fresh host (the lab's cache is kept, the host is not), runs the command that an operator types, and sends a request
to Triton's HTTP endpoint, from the host itself because the ports are published only on its loopback address.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.lab.settings import REPOSITORY
from tests.lab.standin_list import STAND_INS

QUESTION = "What is machine learning?"
# SmolLM2's chat template, rendered, because Triton's generate endpoint does not apply it.
PROMPT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)
LAB = [str(REPOSITORY / "tests" / "lab" / "lab")]
PYINFRA = [sys.executable, "-m", "pyinfra"]


def main() -> int:
    """Run the demo. Returns the exit code of the first command that failed."""
    began = time.monotonic()
    steps: list[tuple[str, float]] = []

    def step(title: str, command: Sequence[str]) -> None:
        print(f"\n== {title}\n$ {shlex.join(short(command))}", flush=True)
        start = time.monotonic()
        done = subprocess.run(command, cwd=REPOSITORY, check=False)
        steps.append((title, time.monotonic() - start))
        if done.returncode != 0:
            print(f"demo: {title}: exit code {done.returncode}; see above", file=sys.stderr)
            sys.exit(done.returncode)

    step("Remove what an earlier demo left", [*LAB, "down"])
    step("Boot a bare host", [*LAB, "up", "1"])
    step("Deploy", [*PYINFRA, "-y", "inventories/lab.py", "deploy.py"])
    step("Deploy again: nothing to do", [*PYINFRA, "-y", "inventories/lab.py", "deploy.py"])

    body = {"text_input": PROMPT, "max_tokens": 96, "bad_words": "", "stop_words": ""}
    request = ["curl", "--silent", "--show-error", "--fail-with-body", "-X", "POST"]
    request += ["http://127.0.0.1:8000/v2/models/ensemble/generate", "-d", json.dumps(body)]
    start = time.monotonic()
    done = subprocess.run(
        [*LAB, "ssh", "1", shlex.join(request)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        print(f"demo: no answer: {done.stdout} {done.stderr}", file=sys.stderr)
        return 1
    answer = json.loads(done.stdout)["text_output"]
    steps.append(("Ask the model", time.monotonic() - start))

    print(f"\n== Request, on the host\n{shlex.join(request)}")
    print(f"\n== Question\n{QUESTION}\n\n== Answer\n{answer.strip()}")
    print("\n== What ran")
    for title, seconds in steps:
        print(f"  {seconds:6.1f} s  {title}")
    print(f"  {time.monotonic() - began:6.1f} s  in all")
    print("\n== Stand-ins, because this machine has no GPU (docs/lab.md)")
    for name, what in STAND_INS:
        print(f"  {name}: {what}")
    print(
        "\nThe host keeps serving: `tests/lab/lab ssh 1`; `make verify` verifies it; `make lab-down` removes it."
    )
    return 0


def short(command: Sequence[str]) -> list[str]:
    """A command as an operator would type it in the repository."""
    if list(command[:3]) == PYINFRA:
        return ["pyinfra", *command[3:]]
    return [word.removeprefix(f"{REPOSITORY}/") for word in command]


if __name__ == "__main__":
    sys.exit(main())
