"""For every test: the process's own files, and no other repository."""

from __future__ import annotations

import os

import pytest

_close = os.close
# git sets these for its hooks and for `rebase --exec`: a test's own git would write into the repository that they name
for _name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[_name]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """
    os.close is Python's own again, before pytest removes the directories of earlier runs.

    A test that runs pyinfra lets gevent replace it by one that closes a directory when gevent's loop runs next. No loop
    runs at the end: each directory that pytest removes would stay open, until the limit of open files is reached.
    Source: gevent/os.py of gevent 25.8.1 and later.
    """
    os.close = _close
