"""The source repositories, with each tag's commit: a tag that has moved is refused."""

from __future__ import annotations

from dataclasses import dataclass

BACKEND_URL = "https://github.com/triton-inference-server/tensorrtllm_backend.git"

# tag -> commit, from the tags of the repository above
BACKEND_COMMITS = {
    "v0.9.0": "76464e9be06600f3979acad9c14857938a66ff9f",
    "v0.10.0": "b92bdd79b6c50fb67203b6064e73662163012fe3",
    "v0.11.0": "6791733e64fe7edd9eda7e0d804d0d04d30fb057",
    "v0.12.0": "9a78477873574098c32467f0fd8a9d3b4c243d9b",
    "v0.13.0": "f80395e67a464e229b6595acd8f9305b344a5d54",
    "v0.14.0": "9958c21167e1a8e6bbddafc09b284904aaf22ab1",
    "v0.15.0": "8534b1cfd341399e046f60ef63a7d6beb549070b",
    "v0.16.0": "ad209ced188cbae19c7041d968dd4e6d3800ece2",
    "v0.17.0": "368eea9b13481a342caec025022c08c37ab816e8",
    "v0.18.0": "86542b637bbccdd708ab892337c8ad3a95932131",
    "v0.18.1": "707ee36dfa52027f0a5aed544406b2744873a7c2",
    "v0.18.2": "c575d8cb980883efca12fe89ba918499c29459be",
    "v0.19.0": "c1e19638304d287f554f738c1411746555ed348c",
    "v0.20.0": "40ab7b32e539d410cf29bc3f0463cb17be3fe50b",
    "v0.21.0": "2710a1ff62a700dbe01ae67f56d200102c249c46",
    "v1.0.0": "efb8a497eac3e16acf6f3ad250565465c80e6f0a",
}


@dataclass(frozen=True)
class Dockerfile:
    """The default base images of a tag's own Dockerfile, without registry."""

    base: str  # BASE_IMAGE:BASE_TAG
    pytorch: str = ""  # PYTORCH_IMAGE; empty if it takes none


DOCKERFILE = "dockerfile/Dockerfile.trt_llm_backend"

# tag -> its DOCKERFILE, from the tags of the repository above. v0.20.0 and later do not have that file: the one that they
# have instead does not make a serving image, and takes its base in another way.
DOCKERFILES = {
    "v0.9.0": Dockerfile("nvidia/tritonserver:24.02-py3"),
    "v0.10.0": Dockerfile("nvidia/tritonserver:24.03-py3"),
    "v0.11.0": Dockerfile("nvidia/tritonserver:24.05-py3"),
    "v0.12.0": Dockerfile("nvidia/tritonserver:24.07-py3"),
    "v0.13.0": Dockerfile("nvidia/tritonserver:24.07-py3"),
    "v0.14.0": Dockerfile("nvidia/tritonserver:24.07-py3"),
    "v0.15.0": Dockerfile("nvidia/tritonserver:24.10-py3"),
    "v0.16.0": Dockerfile("nvidia/tritonserver:24.11-py3"),
    "v0.17.0": Dockerfile("nvidia/tritonserver:25.01-py3", "nvidia/pytorch:25.01-py3"),
    "v0.18.0": Dockerfile("nvidia/tritonserver:25.02-py3", "nvidia/pytorch:25.03-py3"),
    "v0.18.2": Dockerfile("nvidia/tritonserver:25.03-py3", "nvidia/pytorch:25.03-py3"),
    "v0.19.0": Dockerfile("nvidia/tritonserver:25.03-py3", "nvidia/pytorch:25.03-py3"),
}
