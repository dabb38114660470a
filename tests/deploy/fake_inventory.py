"""Hosts of pyinfra's @fake connector, as the JSON file named by SCENARIO describes them.

    {"log": FILE, "data": {inventory data}, "hosts": {NAME: [[PART OF A COMMAND, SUCCESS, [LINES]], …]},  (null: closed)
     "own": {NAME: {data of one host}}}

The connector's own `fake_responses` are host data, and the plan refuses data it does not know; so the one method that
looks a response up is replaced, which also writes down what reached the host.
"""

import json
import os
from pathlib import Path

from pyinfra.connectors.fake import FakeConnector
from pyinfra.connectors.util import CommandOutput, OutputLine

_scenario = json.loads(Path(os.environ["SCENARIO"]).read_text(encoding="utf-8"))


def _look_up(self: FakeConnector, command_str: str) -> tuple[bool, CommandOutput]:
    with open(_scenario["log"], "a", encoding="utf-8") as log:
        log.write(json.dumps([self.host.name, command_str]) + "\n")
    for part, success, lines in _scenario["hosts"][self.host.name]:
        if part in command_str:
            if success is None:
                raise EOFError  # as paramiko does, when the host closes the connection
            return success, CommandOutput([OutputLine("stdout", line) for line in lines])
    return True, CommandOutput([])


FakeConnector._lookup_response = _look_up  # type: ignore[method-assign]

hosts = [
    (name, {**_scenario["data"], **_scenario.get("own", {}).get(name, {})}) for name in _scenario["hosts"]
]
