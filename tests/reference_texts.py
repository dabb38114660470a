"""What each key of an inventory and of a profile is for: the sentences of docs/reference.

One entry a field, `Model.field`; tests/unit/test_reference_pages.py finds a field without one. The models themselves stay
free of texts that only a page reads.
"""

from __future__ import annotations

# Heading -> keys of Settings, in the order of the page
SETTINGS_GROUPS: dict[str, tuple[str, ...]] = {
    "Model and host": (
        "model",
        "profile_overrides",
        "shape",
        "gpu_ids",
        "data_root",
        "service_name",
        "services",
        "at_data_root",
    ),
    "Ports and access": (
        *("http_port", "grpc_port", "metrics_port", "bind_address", "expose", "allowed_sources", "egress"),
        *("gateway", "door"),
    ),
    "Server": (
        *(
            "tritonserver_arguments",
            "server_user",
            "pids_limit",
            "start_timeout_s",
            "stop_timeout_s",
            "selinux",
        ),
    ),
    "Upgrades": (
        *("front", "haproxy_packages", "drain_s", "max_unavailable", "soak_s", "latency_factor"),
        *("bench_gate", "bench_share", "measurements_directory"),
        *("record_golden", "golden_directory", "golden_agreement", "golden_less_likely"),
        *("retry_failed", "keep_releases"),
    ),
    "Notifications": ("notifications",),
    "Hosts that share": ("share",),
    "Disks": ("grow_root_file_system", "local_disks", "local_disks_erase"),
    "Packages": (
        *("docker_repository_url", "docker_gpg_key_url", "docker_gpg_fingerprint", "docker_packages"),
        *("docker_daemon_settings", "nvidia_container_toolkit_repository_url"),
        *("nvidia_container_toolkit_gpg_key_url", "nvidia_container_toolkit_gpg_fingerprint"),
        *("nvidia_container_toolkit_packages", "nvidia_container_toolkit_channel"),
        *("nvidia_container_toolkit_gpgcheck", "git_packages", "extra_packages", "system_repositories"),
        *("version_lock", "package_lock_wait_s", "wave"),
    ),
    "Sources and digests": (
        *("image_digests", "image_registry", "docker_hub_registry", "hub_endpoint", "git_mirrors"),
        *("backend_commits", "python_index_url"),
    ),
    "Monitoring": ("monitoring", "monitoring_server"),
    "Load balancer": ("load_balancer", "rollout"),
    "Waivers": ("preflight_waived", "waivers"),
}

SETTINGS: dict[str, str] = {
    "Settings.model": "The profile to serve: the name of a file in `inventories/models`, without `.toml`.",
    "Settings.profile_overrides": "Keys of the profile that differ on this host, as nested tables. They win over the profile's.",
    "Settings.shape": (
        "The OCI shape of the host. Its GPUs are compared with those that `nvidia-smi` reports. The dynamic inventory sets it."
    ),
    "Settings.gpu_ids": 'Which GPUs to use: `"all"`, or a list of indices such as `[0, 1]`.',
    "Settings.data_root": (
        "Directory on the host for every artifact and release. At least two levels, on a disk that is kept."
    ),
    "Settings.service_name": "Name of the systemd unit and of the container.",
    "Settings.services": (
        "Several services on the host: a table for each, with its `model`, `gpu_ids`, ports and other settings of a service. "
        "Empty: the host has one. See [several services](../how-to/services.md)."
    ),
    "Settings.at_data_root": (
        "The service that the host had before it had several: what it keeps stays at the data root. One of `services` at most."
    ),
    "Settings.http_port": "HTTP port of Triton. None: the profile's.",
    "Settings.grpc_port": "gRPC port of Triton. None: the profile's.",
    "Settings.metrics_port": "Port of the metrics. None: the profile's.",
    "Settings.bind_address": "IPv4 address of the host on which the ports are published.",
    "Settings.expose": "Allows a public `bind_address`, and `0.0.0.0/0` in `allowed_sources`.",
    "Settings.allowed_sources": (
        "Networks that may reach the ports, such as `10.0.0.0/16`. Required where `bind_address` is not a loopback address."
    ),
    "Settings.egress": (
        "Networks that the server may connect to by itself. Link-local addresses, and so the cloud's metadata, are refused."
    ),
    "Settings.gateway": (
        "TLS and API keys in front of Triton, whose own ports are then published on the loopback address alone. None: no gateway."
    ),
    "Settings.door": (
        "OpenAI's interface in front of Triton, behind the gateway; without a gateway on the loopback address alone. None: no door."
    ),
    "Settings.notifications": "Who is told when a run begins and how it ends. See [notifications](../how-to/notifications.md). None: nobody.",
    "NotificationSettings.webhook": (
        "A URL, or a list of URLs, to which the message is sent: `https://`, or `http://` to this machine. One with a secret in it is refused."
    ),
    "NotificationSettings.webhook_variable": "The environment variable with one more URL, which may be a secret.",
    "NotificationSettings.token_variable": "The environment variable with the token that is sent to each webhook: `Authorization: Bearer …`.",
    "NotificationSettings.oci_topic": "The OCID of a topic of OCI Notifications, in whatever region.",
    "NotificationSettings.notify_converged": "Send a message of a run too that found nothing to change.",
    "Settings.share": (
        "Hosts of one run hand each other weights, images and engines that one of them has. A table, also an empty one. None: each makes "
        "its own. See [a fleet](../how-to/fleet.md)."
    ),
    "ShareSettings.port": "Port on which the host gives them to the others, while a run needs it.",
    "ShareSettings.address": "Name or address under which the others reach the host. None: the address that a deploy uses.",
    "ShareSettings.transfer_mbit": "The most that one transfer takes, in megabits a second. 0: no limit.",
    "Settings.monitoring": (
        "The host writes metrics of its own for node_exporter, and is among the targets of `tritonhost monitoring`. "
        "A table, also an empty one. None: neither. See [monitoring](../how-to/monitoring.md)."
    ),
    "MonitoringSettings.textfile_directory": (
        "Directory on the host that node_exporter reads: its `--collector.textfile.directory`."
    ),
    "MonitoringSettings.address": (
        "Name or address under which Prometheus reaches the host. Behind a gateway, a name of its certificate. "
        "None: `bind_address`, or the address that a deploy uses."
    ),
    "MonitoringSettings.node_port": "Port of a node_exporter that tritonhost does not run.",
    "MonitoringSettings.dcgm_port": "Port of a dcgm-exporter that tritonhost does not run.",
    "MonitoringSettings.exporters": "The exporters that tritonhost runs on the host, each off by default.",
    "MonitoringSettings.bind": "Where those listen. None: `bind_address`.",
    "MonitoringSettings.sources": "The networks that may reach them there; needed where that is not the loopback address.",
    "Settings.monitoring_server": (
        "The host runs Prometheus, Alertmanager and Grafana for the others, and serves no model. In the host's own entry alone. None: "
        "it serves. See [monitoring](../how-to/monitoring.md#a-monitoring-server)."
    ),
    "Settings.load_balancer": (
        "The host takes the clients of the others, and serves no model. In the host's own entry alone. None: it serves. See "
        "[load balancer](../how-to/load-balancer.md)."
    ),
    "Settings.rollout": (
        "The first host of an upgrade serves a share of the requests, which decide about the release. A table. None: its gates alone decide. "
        "See [canary](../how-to/load-balancer.md#let-requests-decide)."
    ),
    "RolloutSettings.canary": 'The share, from `"0.01 %"` to `"50 %"`.',
    "RolloutSettings.minutes": "How long.",
    "RolloutSettings.least_requests": "With fewer requests in that time the canary is held, and the run ends.",
    "RolloutSettings.slower": "How many times the other hosts' median time to the first byte the canary's may be.",
    "Settings.wave": (
        "Driver and kernel at versions of the site's, host by host and with a reboot. A table. None: neither is touched. "
        "See [driver](../how-to/driver.md#a-wave)."
    ),
    "WaveSettings.packages": "Packages of driver, fabric manager and kernel, each at its version.",
    "WaveSettings.driver": "The driver afterwards, as nvidia-smi prints it. None: it stays.",
    "WaveSettings.kernel": "The kernel afterwards, as `uname -r` prints it. None: it stays.",
    "WaveSettings.reboot_timeout_s": "How long the host may be away.",
    "LoadBalancer.certificate": "File of the machine that deploys, PEM: the certificate that clients are shown, then its chain.",
    "LoadBalancer.private_key": "File of the machine that deploys, mode 0600: its key, PEM without a passphrase.",
    "LoadBalancer.gateway_ca": "File of the machine that deploys: the root certificate of the hosts' gateways.",
    "LoadBalancer.gateway_name": "DNS name that the gateways' certificates must have. None: any that the root has signed.",
    "LoadBalancer.bind": "The host's own address, where clients connect.",
    "LoadBalancer.port": "Port for clients: HTTP, gRPC and the OpenAI API alike.",
    "LoadBalancer.sources": "The networks that may connect.",
    "LoadBalancer.model": "Of several models of the inventory, the one whose hosts it is for.",
    "LoadBalancer.metrics_port": "Port of haproxy's metrics for Prometheus. 0: none.",
    "LoadBalancer.metrics_sources": "The networks that may read them, on `bind`. None: the host's own loopback alone.",
    "LoadBalancer.max_connections": "Connections of all clients together.",
    "MonitoringServer.data_root": "Directory on the host of what the three programs keep.",
    "MonitoringServer.admin_password": (
        "File of the machine that deploys, mode 0600: the password of Grafana's user `admin`, 12 characters or more."
    ),
    "MonitoringServer.bind": "Where Grafana listens. Prometheus and Alertmanager are on the host's loopback alone.",
    "MonitoringServer.port": "Port of Grafana.",
    "MonitoringServer.sources": "The networks that may reach Grafana; needed where it is not on the loopback.",
    "MonitoringServer.certificate": "File of the machine that deploys: Grafana's certificate, PEM. Needed where it is not on the loopback.",
    "MonitoringServer.private_key": "File of the machine that deploys, mode 0600: its key, PEM without a passphrase.",
    "MonitoringServer.receivers": (
        "File of the machine that deploys, mode 0600: an `alertmanager.yml`, which says who is told of an alert. None: alerts are only shown."
    ),
    "MonitoringServer.gateway_key": (
        "File of the machine that deploys, mode 0600: a key of the hosts' gateways on one line. Needed where a watched host has a gateway."
    ),
    "MonitoringServer.gateway_ca": "File of the machine that deploys: the root certificate of the gateways. Needed as the key is.",
    "MonitoringServer.remote_write": "URL to which Prometheus sends what it scrapes as well. None: nowhere.",
    "MonitoringServer.runbooks": "URL of the page with a heading for each alert. None: that of the repository.",
    "MonitoringServer.retention_days": "How long Prometheus keeps what it has.",
    "MonitoringServer.retention_gib": "How much it keeps at most.",
    "MonitoringServer.prometheus_port": "Port of Prometheus, on the loopback.",
    "MonitoringServer.alertmanager_port": "Port of Alertmanager, on the loopback.",
    "MonitoringServer.prometheus_image": "Prometheus, `name:version` on `docker_hub_registry`; its digest is in `image_digests`.",
    "MonitoringServer.alertmanager_image": "Alertmanager, the same.",
    "MonitoringServer.grafana_image": "Grafana, the same.",
    "Exporters.node": "node_exporter, in a container; `{}` for the defaults. None: none.",
    "Exporters.dcgm": "dcgm-exporter, in a container; `{}` for the defaults. None: none.",
    "NodeExporter.port": "Where node_exporter listens.",
    "NodeExporter.image": "node_exporter, `name:version` on `docker_hub_registry`; its digest is in `image_digests`.",
    "DcgmExporter.port": "Where dcgm-exporter listens.",
    "DcgmExporter.image": "dcgm-exporter, `name:version` on `image_registry`, 4.5.3-4.8.2 or later; its digest is in `image_digests`.",
    "DcgmExporter.profiling": "Whether it shows profiling metrics as well, for which it is root with CAP_SYS_ADMIN.",
    "Settings.tritonserver_arguments": "Further options of `tritonserver`, as `--name=value`. The plan's own options are refused.",
    "Settings.server_user": "The user of the server's container as `uid:gid`, not root. The default is unassigned on Oracle Linux.",
    "Settings.pids_limit": "Most processes and threads of the serving container. None: 8192 for each GPU.",
    "Settings.start_timeout_s": "How long the models may take to get ready.",
    "Settings.stop_timeout_s": "How long the server may take to stop.",
    "Settings.selinux": "`auto`: label the mounted directories and confine containers where the host has SELinux. `off`: do neither.",
    "Settings.front": (
        "`haproxy`: a proxy, so that an upgrade that fits beside the running release loses no request. `none`: upgrade in place."
    ),
    "Settings.haproxy_packages": "Package and version of haproxy. None as version: the one in the repositories.",
    "Settings.drain_s": "How long a server that gets no new requests may take for those in flight.",
    "Settings.max_unavailable": "How many serving hosts to change at a time, after the first one has succeeded alone.",
    "Settings.soak_s": "How long to watch a new release after its golden answer. A crash in this time fails it.",
    "Settings.record_golden": "Record the golden answers of proven releases, and hold back a release that answers differently.",
    "Settings.golden_directory": "Where they are recorded, relative to the project.",
    "Settings.golden_agreement": (
        "The part of the words that must be the same where the numbers are computed another way: another engine, image, precision or GPU."
    ),
    "Settings.golden_less_likely": (
        "By how many nats a word an answer may be less likely than the recorded one, where the numbers are computed another way and "
        "the server gives log-probabilities."
    ),
    "Settings.bench_gate": '`"smoke"`: a new release is [measured through the door](../how-to/bench.md#the-gate); needs `door`.',
    "Settings.bench_share": "The part of the previous release's tokens a second that a new one must reach there.",
    "Settings.measurements_directory": "Where `bench` and the gate write their results, on the machine that deploys.",
    "Settings.latency_factor": "How many times slower than the previous release the golden answers may be.",
    "Settings.retry_failed": "Try a release again that has the verdict `failed` or `withdrawn`.",
    "Settings.keep_releases": "How many releases to keep on the host, among them the one to roll back to.",
    "Settings.grow_root_file_system": "Grow the root partition, volume and file system to the size of the boot volume.",
    "Settings.local_disks": (
        "How to use the local NVMe disks for the data root: `raid0` or `raid10` over all of them, or `none`. One disk alone has no RAID."
    ),
    "Settings.local_disks_erase": "Take local disks without a signature for empty ones, even where they hold something other than zeros.",
    "Settings.docker_repository_url": "Docker's dnf repository. `{os_major}` stands for the major version of Oracle Linux.",
    "Settings.docker_gpg_key_url": "Where Docker's package key is.",
    "Settings.docker_gpg_fingerprint": "Fingerprint of that key, 40 capital hexadecimal digits.",
    "Settings.docker_packages": "Docker's packages at exact versions.",
    "Settings.docker_daemon_settings": "Keys to merge into `/etc/docker/daemon.json`. Other keys of the file stay as they are.",
    "Settings.nvidia_container_toolkit_repository_url": "dnf repository of the NVIDIA container toolkit. `{channel}` stands for the channel.",
    "Settings.nvidia_container_toolkit_gpg_key_url": "Where the toolkit's key is.",
    "Settings.nvidia_container_toolkit_gpg_fingerprint": "Fingerprint of that key, 40 capital hexadecimal digits.",
    "Settings.nvidia_container_toolkit_packages": "The toolkit's packages at exact versions.",
    "Settings.nvidia_container_toolkit_channel": "Channel of the toolkit's repository.",
    "Settings.nvidia_container_toolkit_gpgcheck": "Check the signature of each package too. NVIDIA signs the metadata; a mirror may sign packages.",
    "Settings.git_packages": "Packages of git. None as version: the one in the repositories.",
    "Settings.extra_packages": "Further packages that the site wants, such as `zip`.",
    "Settings.system_repositories": (
        "Name to URL: repositories for the distribution's packages. With them dnf uses no repository that the host has configured."
    ),
    "Settings.version_lock": "Lock the pinned packages, so that `dnf update` does not move them, and keep podman, buildah and runc away.",
    "Settings.package_lock_wait_s": "How long to wait for another package manager, and for cloud-init's first boot.",
    "Settings.image_digests": "Image as `name:tag`, without registry, to its `sha256:` digest. Every image that is pulled needs one.",
    "Settings.image_registry": "Registry of NVIDIA's images, or a mirror of it.",
    "Settings.docker_hub_registry": "Registry of all other images, or a mirror of it.",
    "Settings.hub_endpoint": "Address of the Hugging Face hub, or of a mirror.",
    "Settings.git_mirrors": "URL prefix to the prefix to fetch from instead, for git, submodules and git-lfs.",
    "Settings.backend_commits": "Tag of `tensorrtllm_backend` to a commit, for a mirror with another history.",
    "Settings.python_index_url": "Python package index for images that are built here. None: pip's default.",
    "Settings.preflight_waived": "Checks of the preflight whose failure is a warning on this host.",
    "Settings.waivers": "Versions below their security floor that the site accepts for a time.",
    "GatewaySettings.certificate": "File on the controller, PEM: the host's certificate, then the chain up to the root.",
    "GatewaySettings.private_key": "File on the controller, PEM without a passphrase, readable by you alone.",
    "GatewaySettings.api_keys": "File on the controller, one key a line: name of the client, a space, the key, and its limits if it has any.",
    "GatewaySettings.port": "Port for clients, HTTP and gRPC alike.",
    "GatewaySettings.proxies": "Load balancers in front, as networks such as `10.0.1.5/32`, at most a /16 each. Their `X-Forwarded-For` is "
    "believed, and the host leaves them before a run interrupts it. See [load balancers](../how-to/gateway.md#load-balancers).",
    "DoorSettings.name": "The model's name for clients. None: the name of the profile.",
    "DoorSettings.also": "Other services of the host, whose models this door offers too.",
    "DoorSettings.port": "Port on the host's loopback address.",
    "DoorSettings.image": "Image of Python 3.11, without registry.",
    "GatewaySettings.image": "Image of nginx's stable branch, without registry.",
    "Waiver.component": "What is below its floor.",
    "Waiver.version": "Its exact version. Another version needs another waiver.",
    "Waiver.reason": "Why the site accepts it: 12 to 400 characters.",
    "Waiver.until": 'Last day, in quotes, such as `"2027-01-31"`.',
}

PROFILE: dict[str, str] = {
    "_Kind.summary": "One line of text, at most 200 characters.",
    "Hardware.shape": "The OCI shape that the profile was made for. `explain` plans for it; a deploy plans for the host's own GPUs.",
    "Hardware.gpu": "Name of its GPU, as `nvidia-smi` prints it.",
    "Hardware.count": "How many GPUs of the shape the profile was made for.",
    "Hardware.limited": "Accepts a shape that Oracle's public page does not list.",
    "Image.release": (
        "A release YY.MM of the support matrix, in quotes. Releases from 26.08 on are known as plain images, for kind `plan` alone."
    ),
    "Image.source": "`pull`: NVIDIA's image by digest. `build`: build the image on the host. [Which to choose](../how-to/models.md#the-image).",
    "Image.base": (
        "Base image of a build, without registry. None: the one that the Dockerfile names, and for kind `plan` "
        "`nvidia/tritonserver:YY.MM-py3`. The tag begins with YY.MM, the Triton that serves."
    ),
    "Server.http_port": "HTTP port. The inventory's ports win over these.",
    "Server.grpc_port": "gRPC port.",
    "Server.metrics_port": "Port of the metrics.",
    "Server.shm_size": "Size of `/dev/shm` in the containers that serve, convert and build.",
    "Server.memlock": "`--ulimit memlock`. -1 means no limit.",
    "Server.stack_bytes": "`--ulimit stack`, in bytes.",
    "Server.load_models": "Models to load, with explicit model control. Empty: all models, at start.",
    "Server.admin_apis": "Opens model control, shared memory, tracing and logging to every client that reaches the ports.",
    "Server.max_request_mib": "Largest HTTP request, in MiB. Releases before 25.06 have no such limit.",
    "Server.arguments": "Further options of `tritonserver`, as `--name=value`. The plan's own options are refused.",
    "Server.environment": "Variables of the serving container, in capital letters. No secrets.",
    "Download.repository": "`owner/name` on the hub.",
    "Download.revision": "A commit, 40 hexadecimal digits.",
    "Download.include": "Patterns of the files to download.",
    "Download.exclude": "Patterns that win over `include`.",
    "Download.gated": "The download needs the Hugging Face token.",
    "Weights.include": "Patterns of the files to download.",
    "Weights.exclude": "Patterns that win over `include`.",
    "Weights.allow_pickle": "Accepts formats that run code when they are loaded.",
    "Weights.code_revision": (
        "The commit, equal to `weights.revision`, whose Python files you have read. They are downloaded too, and "
        "`llm.trust_remote_code` may be true."
    ),
    "Dataset.name": "Last part of the dataset's path in the container. `quantize.py` recognizes `cnn_dailymail` by it.",
    "Architecture.hidden_size": "Width of a layer.",
    "Architecture.layers": "Number of layers.",
    "Architecture.heads": "Number of attention heads.",
    "Architecture.kv_heads": "Number of key and value heads: a divisor of `heads`.",
    "Architecture.head_size": "Width of a head.",
    "Architecture.intermediate_size": "Width of the MLP, of one expert.",
    "Architecture.vocabulary": "Number of tokens.",
    "Architecture.max_positions": "Longest sequence that the model was made for, rope scaling included.",
    "Architecture.experts": "Number of experts of a mixture.",
    "Architecture.tied_embeddings": "Embedding and output head are one tensor.",
    "Architecture.gated_mlp": "The MLP has a gate: three matrices, not two. False for GPT-2.",
    "Architecture.attention_bias": "Query, key and value have biases.",
    "Architecture.head_norms": "Each query and key head has a norm: Qwen3, Gemma 3.",
    "Architecture.layer_norms": "Norms of the hidden size in a layer: 2, or 4 for Gemma 2 and 3.",
    "Architecture.rope_type": "`llama3`, `linear`, `yarn` and so on. A release that does not know the type is refused.",
    "Checkpoint.family": "Which converter to use: `gpt`, `llama`, `mistral` or `mixtral`.",
    "Checkpoint.model_type": "A further `model_type` of `config.json` that this converter reads.",
    "Checkpoint.dtype": "Data type of the weights in the checkpoint.",
    "Checkpoint.tensor_parallel": "Ranks that share each layer. Each rank has one GPU and one server process.",
    "Checkpoint.pipeline_parallel": "Ranks that each have a part of the layers.",
    "Checkpoint.flags": (
        "Further flags of the family's converter or of `quantize.py`, without dashes. True means a flag without a value. "
        "`gpt_variant` is `gpt2` by default."
    ),
    "Checkpoint.calibration": "The dataset that `flags.int8_kv_cache` and `flags.smoothquant` calibrate with. Required with them.",
    "Checkpoint.quantization": "With this table `quantize.py` runs instead of the converter.",
    "LlmApiProfile.triton_config": (
        "Further keys of `triton_config` in `model.yaml`, such as `cancellation_check_period_ms` (100). A key that the release does not know "
        "has no effect."
    ),
    "Golden.filler_words": "Send so many plain words before the prompt, about a token each. Some faults show only in long prompts.",
    "Quantization.format": "Format of the quantized weights.",
    "Quantization.kv_cache_dtype": "Data type of the KV cache.",
    "Quantization.calibration_size": "`--calib_size`.",
    "Quantization.calibration_batch": "`--batch_size`.",
    "Quantization.awq_block_size": "`--awq_block_size`.",
    "Quantization.calibration": "The dataset to calibrate with. Required except for `int8_wo`, `int4_wo` and `full_prec`.",
    "Repository.models": "Models of `inflight_batcher_llm` to serve.",
    "Repository.parameters": "Placeholder to value, for every model whose template has the placeholder.",
    "Repository.model_parameters": "The same for one model, such as `[repository.model_parameters.tensorrt_llm]`.",
    "Repository.unlisted": "Placeholders that a template has and this tool does not know. The run names those that it meets.",
    "EngineProfile.engine": (
        "Flags of `trtllm-build`, without dashes. They are written as the version of the release wants them; a flag that it "
        "does not have is refused. `lora_dir` and `lora_target_modules` take a list."
    ),
    "Golden.model": "The model to query. A model that takes requests and has no golden request of its own gets the first one.",
    "Golden.prompt": "The prompt.",
    "Golden.max_tokens": "Tokens to generate, 1 to 4096.",
    "Golden.expect": 'How the answer starts. `""` accepts an answer of at least one word. A profile needs at least one `[[golden]]`.',
    "LlmApiGolden.model": "The one model of this kind.",
    "LlmApiProfile.llm": (
        "Arguments of `tensorrt_llm.LLM`, written to `model.yaml`. The plan sets `model`, `tokenizer` and `triton_config`. "
        "`backend` is `pytorch` by default. The server needs `tensor_parallel_size` x `pipeline_parallel_size` GPUs."
    ),
    "LlmApiProfile.llm_unlisted": (
        "Arguments that `LLM` has and this tool does not know. `kv_cache_config.NAME` for those of that table."
    ),
    "LlmApiProfile.quantized": "How the weights of the repository are quantized already, for the forecast from `[architecture]`.",
    "LlmApiProfile.decoupled": "Stream the answer.",
    "LlmApiProfile.compile_cache": (
        "Keep what PyTorch, Triton's compiler, FlashInfer and the autotuner make at a start for the next one, in a directory that "
        "the server's user writes. Its file system must not be `noexec`."
    ),
    "PlanProfile.encoders": "Two tables, `[encoders.vision]` and `[encoders.text]`, each with the keys below.",
    "Encoder.architecture": "`clip_vision` for `vision`, `bert` for `text`.",
    "Encoder.weights": "A table with the keys of `weights` of [kind `engine`](#kind-engine).",
    "Encoder.embedding_size": "Numbers of the vector, 8 to 2000. The export refuses any other size.",
    "Encoder.precision": "Precision of the exported graph, which TensorRT 10 and 11 read alike.",
    "Encoder.max_batch_size": "Largest batch of the TensorRT plan.",
    "Encoder.image_size": "Pixels of a side of the square picture, for `vision`.",
    "Encoder.text_tokens": "Tokens to which every text is padded or cut, for `text`.",
    "Encoder.workspace_mib": "`trtexec --memPoolSize=workspace:`.",
    "Documents.image": "PostgreSQL with pgvector 0.5 or later, without registry.",
    "Documents.seed": "`files/documents/NAME.jsonl`: stored at the first deployment, and the calibration data of int8.",
    "Documents.shm_size": "Size of `/dev/shm` of the database's container.",
    "SearchGolden.model": "The model to query.",
    "SearchGolden.text": "A text to search for.",
    "SearchGolden.image_of": "Search for the picture of this document of `seed`. A text, a picture or both are needed.",
    "SearchGolden.expect": "The id of the document that must be found.",
    "EngineProfile.kind": "The kind of the profile.",
    "LlmApiProfile.kind": "The kind of the profile.",
    "PlanProfile.kind": "The kind of the profile.",
}

# Operations that an operator runs by name, with pyinfra
OPERATIONS: dict[str, str] = {
    "operations.release.status": "Print the releases on each host: which one runs, which one a rollback would run, the verdicts.",
    "operations.release.rollback": "Run the previous release, and check its golden answer.",
    "operations.release.bill_of_materials": "Write `build/sbom-HOST.json`, CycloneDX 1.6. Changes nothing on the host.",
    "operations.documents.put file=documents.jsonl": "Store documents with the vectors of the running release's encoders.",
    "operations.preflight.report": "Run the checks of the preflight and print them. Changes nothing.",
}
