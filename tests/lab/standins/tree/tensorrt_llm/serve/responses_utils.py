"""
Stand-in: fails as the real file does where the openai package is older than 1.108.2.

The package is looked at and not imported: what it imports itself is not in this image.
"""

from importlib.util import find_spec
from pathlib import Path

_MODULE = "openai.types.responses.response_content_part_added_event"


def _package() -> Path:
    found = find_spec("openai")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'openai'")
    return Path(found.origin).parent


_file = _package() / "types" / "responses" / "response_content_part_added_event.py"
if "class PartReasoningText" not in _file.read_text(encoding="utf-8"):
    raise ImportError(f"cannot import name 'PartReasoningText' from '{_MODULE}' ({_file})")
