"""The one place that assembles argument vectors: docker, git, TensorRT-LLM's scripts, tritonserver.

Every function returns a list of words; quoting for a shell happens once, where a script is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from operations.plan.catalog import flags
from operations.plan.catalog.support_matrix import version_tuple
from operations.plan.catalog.values import FlagValue, Value
from operations.plan.profile.tables import Checkpoint, Dataset, Encoder

Argv = list[str]

# Where things are inside each of our containers, so that no host path ends up in an artifact.
WEIGHTS = "/weights"
CHECKPOINT = "/checkpoint"
ENGINE = "/engine"
RELEASE = "/release"
OUTPUT = "/output"
ONNX = "/onnx"
CALIBRATION = "/calibration"
WORK = "/run/tritonhost"  # the unit's own directory, where its files are
DATABASE = "/database"  # PostgreSQL's socket

# None of our containers needs root's capabilities: the user that makes an artifact owns every file that it touches.
# A core dump would contain requests, and in a gateway the keys.
LOCKED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--ulimit", "core=0")

# PostgreSQL's entrypoint only gives its directories to its own user and becomes that user.
DATABASE_OPTIONS = (
    *LOCKED,
    *(
        word
        for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
        for word in ("--cap-add", name)
    ),
    *("--pids-limit", "512"),
)

# The user that makes artifacts has no account on the host, and writes only to OUTPUT and to memory. files/host/work.sh
# lets it write to the artifact's directory, and sets how much memory it may use.
WORKER = 60600
SCRATCH = "/tmp:rw,exec,nosuid,nodev,mode=1777"
AT_WORK = ("--read-only", "--tmpfs", SCRATCH, "--pids-limit", "32768")


def container(
    image: str,
    command: Sequence[str],
    *,
    name: str,
    gpus: str | None = None,
    network: str = "none",
    mounts: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Argv:
    """
    `docker run` of one foreground container that removes itself.

    + gpus: the GPUs it sees, `all` or `0,1`; None: none. The nvidia runtime is named per container and never
      made docker's default, so that other containers of the host are not affected.
    + mounts: host path -> container path, read-only except OUTPUT

    The image's entrypoint stays: if the host's driver is older than the image's CUDA, NGC's entrypoint makes CUDA's
    forward-compatibility libraries visible.
    """
    argv = ["docker", "run", "--rm", "--init", "--name", name, "--pull", "never", "--network", network]
    argv += LOCKED
    if gpus is not None:
        argv += ["--runtime", "nvidia", "--env", f"NVIDIA_VISIBLE_DEVICES={gpus}"]
        argv += ["--env", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"]
    for key, value in (environment or {}).items():
        argv += ["--env", f"{key}={value}"]
    for source, target in (mounts or {}).items():
        argv += ["--volume", f"{source}:{target}" if target == OUTPUT else f"{source}:{target}:ro"]
    return [*argv, *options, image, *command]


def worker(
    image: str,
    command: Sequence[str],
    *,
    name: str,
    user: int = WORKER,
    gpus: str | None = None,
    network: str = "none",
    mounts: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Argv:
    """
    `docker run` of a container that makes an artifact or inspects an image: without an account of the host, and limited.

    + user: another one, if it must read what only root can
    """
    return container(
        image,
        command,
        name=name,
        gpus=gpus,
        network=network,
        mounts=mounts,
        options=["--user", f"{user}:{user}", *AT_WORK, *options],
        environment={"HOME": "/tmp", "USER": "tritonhost"},
    )


def first_of(
    candidates: Sequence[str], arguments: Sequence[str], interpreter: str = "python3 ", importable: str = ""
) -> Argv:
    """
    Run the first of several scripts that exists in the container; name those that were tried if none does.

    + importable: a directory whose packages a script may import, in addition to the image's PYTHONPATH
    """
    path = f'export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{importable}"; ' if importable else ""
    search = (
        'n=$1; shift; i=0; tried=; found=; while [ "$i" -lt "$n" ]; do tried="$tried $1"; '
        'if [ -z "$found" ] && [ -e "$1" ]; then found=$1; fi; shift; i=$((i + 1)); done; '
        '[ -n "$found" ] || { echo "nothing found in the serving image, looked for:$tried" >&2; exit 66; }; '
        # A neutral directory: python run inside a clone imports the clone's tensorrt_llm instead of the image's.
        f'{path}cd /tmp && exec {interpreter}"$found" "$@"'
    )
    return ["sh", "-c", search, "first-of", str(len(candidates)), *candidates, *arguments]


def as_options(values: Mapping[str, FlagValue]) -> Argv:
    """
    `{"gemm_plugin": "float16", "fast_build": True}` -> `--gemm_plugin float16 --fast_build`; false omits the option, and a
    list becomes several words.
    """
    argv: Argv = []
    for name, value in values.items():
        if value is True:
            argv.append(f"--{name}")
        elif isinstance(value, tuple):
            argv += [f"--{name}", *value]
        elif value is not False:
            argv += [f"--{name}", str(value)]
    return argv


def _examples(version: str) -> str:
    """
    Where `examples` is imported from: gpt's converter of TensorRT-LLM's main branch imports it since 2026-02-25 (7edbcccb);
    whether an image of 1.2 has that converter is not known. This does not hide the image's own tensorrt_llm:
    /app/tensorrt_llm is not a package, and a package takes precedence.
    """
    return "/app" if version_tuple(version) >= (1, 2) else ""


def calibration_path(dataset: Dataset) -> str:
    """Where a calibration data set is in a container: TensorRT-LLM recognises it by the last part of its path."""
    return f"{CALIBRATION}/{dataset.name}"


def convert(checkpoint: Checkpoint, version: str, candidates: Sequence[str]) -> Argv:
    """convert_checkpoint.py: Hugging Face weights -> TensorRT-LLM checkpoint."""
    arguments: dict[str, FlagValue] = {
        "model_dir": WEIGHTS,
        "output_dir": OUTPUT,
        "dtype": checkpoint.dtype,
        "tp_size": checkpoint.tensor_parallel,
        **({"pp_size": checkpoint.pipeline_parallel} if checkpoint.pipeline_parallel > 1 else {}),
        **({"calib_dataset": calibration_path(checkpoint.calibration)} if checkpoint.calibration else {}),
        **checkpoint.flags,
    }
    options = as_options(flags.convert_flags(arguments, version, checkpoint.family))
    return first_of(candidates, options, importable=_examples(version))


def quantize(checkpoint: Checkpoint, version: str, candidates: Sequence[str]) -> Argv:
    """quantize.py: Hugging Face weights -> quantized TensorRT-LLM checkpoint."""
    recipe = checkpoint.quantization
    if recipe is None:
        raise ValueError("quantize: the checkpoint has no quantization")
    chosen: dict[str, Value | None] = {
        "model_dir": WEIGHTS,
        "output_dir": OUTPUT,
        "dtype": checkpoint.dtype,
        "qformat": recipe.format,
        "tp_size": checkpoint.tensor_parallel,
        "pp_size": checkpoint.pipeline_parallel if checkpoint.pipeline_parallel > 1 else None,
        "kv_cache_dtype": recipe.kv_cache_dtype,
        "calib_size": recipe.calibration_size,
        "batch_size": recipe.calibration_batch,
        "awq_block_size": recipe.awq_block_size,
        "calib_dataset": calibration_path(recipe.calibration) if recipe.calibration else None,
    }
    arguments = {name: value for name, value in chosen.items() if value is not None}
    options = as_options(flags.quantize_flags({**arguments, **checkpoint.flags}, version))
    return first_of(candidates, options, importable=_examples(version))


def build_engine(engine: Mapping[str, FlagValue], version: str) -> Argv:
    """trtllm-build: TensorRT-LLM checkpoint -> engine."""
    arguments = {"checkpoint_dir": CHECKPOINT, "output_dir": OUTPUT, **engine}
    return ["trtllm-build", *as_options(flags.build_flags(arguments, version))]


# Where NVIDIA's images keep trtexec: the Triton repository's own tests (qa/L0_perf_resnet) call the first, images of
# TensorRT-LLM have had the second.
TRTEXEC = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")


# Options for types beside float32. TensorRT 11 takes every type from the graph and has no such options:
# https://docs.nvidia.com/deeplearning/tensorrt/11.4.0/api/migration/tensorrt-10x-to-11x.html
_TYPES = {"fp32": (), "fp16": ("--fp16",), "int8": ("--int8", "--fp16")}


def trtexec(encoder: Encoder, tensorrt: int) -> Argv:
    """
    trtexec: ONNX -> TensorRT plan, for batches of 1 to the encoder's largest, without timing the result.

    + tensorrt: its major version

    Flags: NVIDIA/TensorRT, samples/common/sampleOptions.cpp at v10.4.0; --skipInference came with 8.6.
    """
    if encoder.architecture == "clip_vision":
        dimensions = {"pixel_values": f"3x{encoder.image_size}x{encoder.image_size}"}
    else:
        dimensions = dict.fromkeys(("input_ids", "attention_mask"), str(encoder.text_tokens))

    def shapes(batch: int) -> str:
        return ",".join(f"{name}:{batch}x{size}" for name, size in dimensions.items())

    arguments = [
        f"--onnx={ONNX}/model.onnx",
        f"--saveEngine={OUTPUT}/model.plan",
        *(_TYPES[encoder.precision] if tensorrt < 11 else ()),
        f"--minShapes={shapes(1)}",
        f"--optShapes={shapes(encoder.max_batch_size)}",
        f"--maxShapes={shapes(encoder.max_batch_size)}",
        f"--memPoolSize=workspace:{encoder.workspace_mib}",  # in MiB
        "--skipInference",
    ]
    return first_of(TRTEXEC, arguments, interpreter="")


# Where PostgreSQL's image has its socket; passed to server and clients, because builds differ in their default.
POSTGRES_SOCKET = "/var/run/postgresql"


# Who may connect, instead of the data directory's own file, which trusts every client. The server's container has the
# socket: from there, any process may connect as `search`, which only reads. The administrator must be PostgreSQL's own
# user by the kernel's answer and the accounts of its own container, which do not include the server's user.
HBA = ("local tritonhost search trust", "local all postgres peer")
HBA_FILE = "/etc/tritonhost-pg_hba.conf"


def psql(container: str, *options: str) -> Argv:
    """psql inside the database's container, as its administrator; SQL comes with --command, or on standard input."""
    inside = ["docker", "exec", "--interactive", "--user", "postgres", container]
    connection = ["--host", POSTGRES_SOCKET, "--username", "postgres", "--dbname", "tritonhost"]
    return [*inside, "psql", *connection, "--no-psqlrc", *options]


def database_asked(container: str) -> Argv:
    """Whether PostgreSQL answers on its container's own loopback, over which no client may connect."""
    return ["docker", "exec", container, "pg_isready", "--quiet", "--host", "127.0.0.1"]


def checkout(
    *,
    url: str,
    tag: str,
    commit: str,
    into: str,
    home: str,
    mirrors: Mapping[str, str],
    submodules: bool,
    lfs: bool,
) -> list[Argv]:
    """
    git: one tag's tree at its pinned commit, with submodules and git-lfs content if wanted.

    + into: the directory of the tree
    + home: a directory for git's configuration. Mirrors are configured there and not with `git -c`, which git does
      not pass on to the clones of submodules.
    """
    git = ["env", f"HOME={home}", "GIT_TERMINAL_PROMPT=0", "git"]
    here = [*git, "-C", into]
    steps = [["mkdir", "-p", home, into]]
    for prefix, mirror in mirrors.items():
        steps.append([*git, "config", "--global", f"url.{mirror}.insteadOf", prefix])
    if lfs:
        steps.append([*git, "lfs", "install", "--skip-repo"])
    steps += [
        [*git, "init", "--quiet", into],
        [*here, "fetch", "--quiet", "--depth", "1", url, f"refs/tags/{tag}"],
        # A moved tag ends here: FETCH_HEAD must be the pinned commit.
        [
            "sh",
            "-c",
            'found=$("$@" rev-parse FETCH_HEAD^{commit}); [ "$found" = "$0" ] || '
            '{ echo "the tag is at commit $found, expected $0; see backend_commits" >&2; exit 65; }',
            commit,
            *here,
        ],
        [*here, "checkout", "--quiet", "--detach", commit],
    ]
    if submodules:
        steps.append([*here, "submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1"])
    if lfs:
        # A pointer that was not replaced by its content fails the build an hour later, in the linker.
        steps.append(
            [
                "sh",
                "-c",
                # by content: which kinds of file are in LFS changes from tag to tag; pictures and texts do not matter
                'pointers=$(find "$0" -name .git -prune -o -type f -size -3 ! -name "*.md" ! -name "*.rst" '
                '! -name "*.png" ! -name "*.jpg" ! -name "*.gif" ! -name "*.svg" ! -name "*.pdf" '
                '-exec grep -lI "^version https://git-lfs" {} + | '
                'xargs -r -d "\\n" grep -lE "^oid sha256:[0-9a-f]{64}$" | paste -s -d " "); '
                '[ -z "$pointers" ] || { echo "git-lfs pointers instead of content: $pointers" >&2; exit 65; }',
                into,
            ]
        )
    return steps


def tritonserver(leader: Sequence[str], worker: Sequence[str], world_size: int, workers: int) -> Argv:
    """
    tritonserver in the foreground, with every rank of its engine.

    + leader, worker: of of_ranks
    + world_size: ranks of the engine. More than one run under one mpirun in leader mode, which ends when any of
      them does. tensorrtllm_backend's scripts/launch_triton_server.py makes the same line; the script itself returns at once, so
      no supervisor can watch it.
    + workers: processes that the one model starts by itself, as the LLM API does for several GPUs. NVIDIA's guide starts such a
      server under an mpirun of its own, which has a place for each of them (tensorrtllm_backend r26.07, docs/llmapi.md; its
      test of one GPU starts tritonserver alone)
    """
    alone = ["mpirun", "--allow-run-as-root", "-n", "1"]
    if world_size == 1 and workers > 1:
        return [*alone, *leader, "--backend-config=python,shm-region-prefix-name=prefix0_"]
    if world_size == 1:
        return list(leader)
    argv = ["mpirun", "--allow-run-as-root"]
    for rank in range(world_size):
        region = f"--backend-config=python,shm-region-prefix-name=prefix{rank}_"
        argv += ["-n", "1", *(worker if rank else leader), region, ":"]
    return argv


def of_ranks(
    ports: tuple[int, int, int],
    complete_configs: bool,
    load_models: Sequence[str],
    exposure: Sequence[str],
    arguments: Sequence[str],
) -> tuple[Argv, Argv]:
    """
    The command of rank 0, which opens the ports and loads every model, and that of each other rank, which loads only
    tensorrt_llm and stays inside it.

    + ports: HTTP, gRPC and metrics, of the container
    + complete_configs: models complete their own config.pbtxt (the LLM-API model does); otherwise the file is served
    as written
    + load_models: with explicit model control, what to load; empty loads the whole repository
    + exposure: the options of operations/plan/exposure/server_flags.py; the other ranks open no port and do not get them
    """
    http, grpc, metrics = ports
    common = [
        "tritonserver",
        f"--model-repository={RELEASE}/model_repository",
        *([] if complete_configs else ["--disable-auto-complete-config"]),
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
    ]
    control = ["--model-control-mode=explicit", *[f"--load-model={model}" for model in load_models]]
    leader = [*common, *(control if load_models else []), *exposure, *arguments]
    worker = [*common, "--model-control-mode=explicit", "--load-model=tensorrt_llm", *arguments]
    return leader, worker
