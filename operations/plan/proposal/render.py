"""Render a chat template, which is a stranger's program: in a process of its own, with little memory and little time.

Reads {"template": …, "values": {…}} from standard input and writes {"text": …}. Ends with 1 where it cannot.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import NoReturn

MEMORY, SECONDS = 2**30, 2  # bytes of address space; of processor time
# Some templates write today's date into the prompt: a golden request must be the same each day
_DATE = "26 Jul 2024"


def _raised(message: object) -> NoReturn:
    raise ValueError(str(message))


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    given = json.load(sys.stdin)
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals |= {"raise_exception": _raised, "strftime_now": lambda _: _DATE}
    try:
        text = environment.from_string(given["template"]).render(**given["values"])
        print(json.dumps({"text": text}))
    except (Exception, MemoryError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
