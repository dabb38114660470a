"""Where sources come from, each tag at its commit: a moved tag is refused."""

from __future__ import annotations

BACKEND_URL = "https://github.com/triton-inference-server/tensorrtllm_backend.git"

# tag -> commit, from `git ls-remote --tags` of the repository above.
BACKEND_COMMITS: dict[str, str] = {}
