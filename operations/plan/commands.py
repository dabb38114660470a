"""The one place that assembles argument vectors: docker, git, TensorRT-LLM's scripts, tritonserver.

Every function returns a list of words; quoting for a shell happens once, where a script is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from operations.plan import flags
from operations.plan.profile_tables import Checkpoint, Encoder, Value

Argv = list[str]

# Where things are inside every container of ours, so that no host path ends up in an artifact.
WEIGHTS = "/weights"
CHECKPOINT = "/checkpoint"
ENGINE = "/engine"
RELEASE = "/release"
OUTPUT = "/output"
ONNX = "/onnx"
CALIBRATION = "/calibration"
WORK = "/run/tritonhost"  # the unit's own directory, where its files are
DATABASE = "/database"  # PostgreSQL's socket

# None of our containers needs a capability of root's: whoever makes an artifact owns every file it touches.
LOCKED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")


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
      made docker's default, so that other containers of the host stay as they are.
    + mounts: host path -> container path, read-only but for OUTPUT

    The image's entrypoint stays: NGC's makes CUDA's forward-compatibility libraries visible where the host's driver
    is older than the image's CUDA.
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


def first_of(candidates: Sequence[str], arguments: Sequence[str], interpreter: str = "python3 ") -> Argv:
    """Run the first of several scripts that exists in the container; say which were tried if none does."""
    search = (
        'n=$1; shift; i=0; tried=; found=; while [ "$i" -lt "$n" ]; do tried="$tried $1"; '
        'if [ -z "$found" ] && [ -e "$1" ]; then found=$1; fi; shift; i=$((i + 1)); done; '
        '[ -n "$found" ] || { echo "nothing found in the serving image, looked for:$tried" >&2; exit 66; }; '
        # A neutral directory: python run inside a clone imports the clone's tensorrt_llm instead of the image's.
        f'cd /tmp && exec {interpreter}"$found" "$@"'
    )
    return ["sh", "-c", search, "first-of", str(len(candidates)), *candidates, *arguments]


def as_options(values: Mapping[str, Value]) -> Argv:
    """`{"gemm_plugin": "float16", "fast_build": True}` -> `--gemm_plugin float16 --fast_build`; false leaves it out."""
    argv: Argv = []
    for name, value in values.items():
        if value is True:
            argv.append(f"--{name}")
        elif value is not False:
            argv += [f"--{name}", str(value)]
    return argv


def convert(checkpoint: Checkpoint, version: str, candidates: Sequence[str]) -> Argv:
    """convert_checkpoint.py: Hugging Face weights -> TensorRT-LLM checkpoint."""
    arguments: dict[str, Value] = {
        "model_dir": WEIGHTS,
        "output_dir": OUTPUT,
        "dtype": checkpoint.dtype,
        "tp_size": checkpoint.tensor_parallel,
        **({"pp_size": checkpoint.pipeline_parallel} if checkpoint.pipeline_parallel > 1 else {}),
        **checkpoint.flags,
    }
    return first_of(candidates, as_options(flags.convert_flags(arguments, version)))


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
        "calib_dataset": f"{CALIBRATION}/{recipe.calibration.name}" if recipe.calibration else None,
    }
    arguments = {name: value for name, value in chosen.items() if value is not None}
    return first_of(candidates, as_options(flags.quantize_flags({**arguments, **checkpoint.flags}, version)))


def build_engine(engine: Mapping[str, Value], version: str) -> Argv:
    """trtllm-build: TensorRT-LLM checkpoint -> engine."""
    arguments = {"checkpoint_dir": CHECKPOINT, "output_dir": OUTPUT, **engine}
    return ["trtllm-build", *as_options(flags.build_flags(arguments, version))]


# Where NVIDIA's images keep trtexec: the Triton repository's own tests (qa/L0_perf_resnet) call the first, images of
# TensorRT-LLM have had the second.
TRTEXEC = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")


def trtexec(encoder: Encoder) -> Argv:
    """
    trtexec: ONNX -> TensorRT plan, for batches of 1 to the encoder's largest, without timing the result.

    Flags: NVIDIA/TensorRT, samples/common/sampleOptions.cpp at v10.4.0; --skipInference came with 8.6.
    """
    if encoder.architecture == "clip_vision":
        dimensions = {"pixel_values": f"3x{encoder.image_size}x{encoder.image_size}"}
    else:
        dimensions = dict.fromkeys(("input_ids", "attention_mask"), str(encoder.text_tokens))

    def shapes(batch: int) -> str:
        return ",".join(f"{name}:{batch}x{size}" for name, size in dimensions.items())

    precision = {"fp32": [], "fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}[encoder.precision]
    arguments = [
        f"--onnx={ONNX}/model.onnx",
        f"--saveEngine={OUTPUT}/model.plan",
        *precision,
        f"--minShapes={shapes(1)}",
        f"--optShapes={shapes(encoder.max_batch_size)}",
        f"--maxShapes={shapes(encoder.max_batch_size)}",
        f"--memPoolSize=workspace:{encoder.workspace_mib}",  # in MiB
        "--skipInference",
    ]
    return first_of(TRTEXEC, arguments, interpreter="")


# Where PostgreSQL's image has its socket; said to server and clients, because builds differ in their default.
POSTGRES_SOCKET = "/var/run/postgresql"


def psql(container: str, *options: str, host: str = POSTGRES_SOCKET) -> Argv:
    """psql inside the database's container, as its administrator; SQL comes with --command, or on standard input."""
    connection = ["--host", host, "--username", "postgres", "--dbname", "tritonhost"]
    return ["docker", "exec", "--interactive", container, "psql", *connection, "--no-psqlrc", *options]


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
    git: one tag's tree at its pinned commit, with submodules and git-lfs content where they are wanted.

    + into: the directory of the tree
    + home: a directory for git's configuration. Mirrors are configured there and not with `git -c`, which git does
      not hand down to the clones of submodules.
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
                'pointers=$(grep -rlI --exclude-dir=.git "^version https://git-lfs" "$0" '
                '--include="*.a" --include="*.so" --include="*.lib" --include="*.dll" || :); '
                '[ -z "$pointers" ] || { echo "git-lfs pointers instead of content: $pointers" >&2; exit 65; }',
                into,
            ]
        )
    return steps


def tritonserver(
    *,
    ports: tuple[int, int, int],
    world_size: int,
    complete_configs: bool,
    load_models: Sequence[str],
    exposure: Sequence[str],
    arguments: Sequence[str],
) -> Argv:
    """
    tritonserver in the foreground, on `ports` for HTTP, gRPC and metrics of its container.

    + world_size: ranks of the engine. More than one run under one mpirun in leader mode, which ends when any of
      them does: rank 0 opens the ports and loads every model, the others load tensorrt_llm alone and stay inside it.
      The line is the one that tensorrtllm_backend's scripts/launch_triton_server.py makes; the script itself
      returns at once, which no supervisor can watch.
    + complete_configs: models complete their own config.pbtxt (the LLM-API model does); otherwise what is written
      is what is served
    + load_models: with explicit model control, what to load; empty loads the whole repository
    + exposure: what operations/plan/server_flags.py says; the other ranks open no port and hear none of it
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
    if world_size == 1:
        return leader
    worker = [*common, "--model-control-mode=explicit", "--load-model=tensorrt_llm", *arguments]
    argv = ["mpirun", "--allow-run-as-root"]
    for rank in range(world_size):
        region = f"--backend-config=python,shm-region-prefix-name=prefix{rank}_"
        argv += ["-n", "1", *(worker if rank else leader), region, ":"]
    return argv
