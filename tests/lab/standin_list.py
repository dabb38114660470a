"""The list of the lab's stand-ins: the demo and the tests print it, docs/lab.md explains it."""

STAND_INS = (
    ("Oracle Linux", "a Debian userland that says it is Oracle Linux, with dnf, rpm and signed repositories"),
    ("GPU and driver", "nvidia-smi prints the GPUs that LAB_GPUS names; there is no device"),
    ("NVIDIA container toolkit", "nvidia-ctk and a runtime that hand nvidia-smi into containers"),
    ("docker-ce", "Debian's docker 20.10 in packages with Docker's names, two versions of the same engine"),
    (
        "tensorrtllm_backend, TensorRT-LLM",
        "repositories of our own with the real layout, tags and parameters",
    ),
    (
        "TensorRT-LLM",
        "converter, builder and backend of our own: a numpy Llama decoder with the real flags and files",
    ),
    (
        "TensorRT",
        "trtexec and Triton's tensorrt backend of our own: plans are ONNX models, run by onnxruntime on the CPU",
    ),
    (
        "dcgm-exporter",
        "a script of our own with the real one's options, metric names and labels; values from nvidia-smi",
    ),
    (
        "Grafana",
        "a script of our own with the real one's settings, provisioning, admin and a part of its HTTP interface",
    ),
    (
        "the Hugging Face hub",
        "a server that the real client downloads from; SmolLM2's real weights, dequantized, and small random models",
    ),
)

REAL = (
    "systemd, sshd, sudo, nftables, firewalld, dnf, rpm, docker, haproxy, nginx, node_exporter, Prometheus, Alertmanager,"
    " tritonserver, PostgreSQL with pgvector, git, git-lfs, pip, huggingface_hub, pyinfra, tritonclient"
)
