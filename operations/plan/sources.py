"""Where sources come from, each tag at its commit: a moved tag is refused."""

from __future__ import annotations

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
