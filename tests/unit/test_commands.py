import subprocess
from pathlib import Path

import pytest

from operations.plan.artifacts import commands
from operations.plan.catalog.values import Value
from operations.plan.profile.tables import Checkpoint
from tests.unit.builders import CALIBRATION


def test_container_is_isolated_by_default() -> None:
    assert commands.container("i", ["tool", "--flag"], name="n") == [
        *["docker", "run", "--rm", "--init", "--name", "n", "--pull", "never", "--network", "none"],
        *[
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--ulimit",
            "core=0",
            "i",
            "tool",
            "--flag",
        ],
    ]


def test_a_container_with_gpus_mounts_and_environment() -> None:
    argv = commands.container(
        "i",
        ["tool"],
        name="n",
        gpus="0,1",
        network="bridge",
        mounts={"/a b": "/weights", "/o": commands.OUTPUT},
        options=["--workdir", "/tmp"],
        environment={"K": "v w"},
    )
    assert argv == [
        *["docker", "run", "--rm", "--init", "--name", "n", "--pull", "never", "--network", "bridge"],
        *["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--ulimit", "core=0"],
        *["--runtime", "nvidia", "--env", "NVIDIA_VISIBLE_DEVICES=0,1"],
        *["--env", "NVIDIA_DRIVER_CAPABILITIES=compute,utility", "--env", "K=v w"],
        *["--volume", "/a b:/weights:ro", "--volume", "/o:/output", "--workdir", "/tmp", "i", "tool"],
    ]


def test_worker_is_unprivileged_and_limited() -> None:
    argv = commands.worker(
        "i", ["tool"], name="n", mounts={"/o": commands.OUTPUT}, options=["--shm-size", "1g"]
    )
    assert argv[argv.index("--user") :] == [
        *["--user", "60600:60600", "--read-only", "--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777"],
        *["--pids-limit", "32768", "--shm-size", "1g", "i", "tool"],
    ]
    assert "HOME=/tmp" in argv


@pytest.mark.parametrize(
    ("values", "argv"),
    [
        ({}, []),
        ({"a": True}, ["--a"]),
        ({"a": False}, []),
        ({"a": 0}, ["--a", "0"]),
        ({"a": 1}, ["--a", "1"]),
        ({"a": 0.9, "b": "x y"}, ["--a", "0.9", "--b", "x y"]),
    ],
)
def test_options(values: dict[str, Value], argv: list[str]) -> None:
    assert commands.as_options(values) == argv


def test_first_existing_script_is_run_with_its_arguments(tmp_path: Path) -> None:
    for name in ("second one.py", "third.py"):
        (tmp_path / name).write_text("import os, sys\nprint(sys.argv, os.getcwd())\n", encoding="utf-8")
    candidates = [str(tmp_path / name) for name in ("first.py", "second one.py", "third.py")]
    arguments = ["--a", "x y", "$(reboot)", ""]
    done = subprocess.run(
        commands.first_of(candidates, arguments), capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{[candidates[1], *arguments]} /tmp\n"


def test_missing_script_error_lists_the_paths_tried(tmp_path: Path) -> None:
    done = subprocess.run(
        commands.first_of([str(tmp_path / "a.py"), str(tmp_path / "b.py")], ["--x"]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 66
    assert f"looked for: {tmp_path}/a.py {tmp_path}/b.py" in done.stderr


def test_convert() -> None:
    checkpoint = Checkpoint(family="llama", dtype="float16", flags={"use_parallel_embedding": True})
    argv = commands.convert(checkpoint, "0.13.0", ["/c.py"])
    assert argv[3:] == [
        *["first-of", "1", "/c.py", "--model_dir", "/weights", "--output_dir", "/output"],
        *["--dtype", "float16", "--tp_size", "1", "--use_parallel_embedding"],
    ]


def test_convert_passes_pp_size_only_with_pipeline_stages() -> None:
    checkpoint = Checkpoint(family="llama", dtype="float16", tensor_parallel=4, pipeline_parallel=2)
    argv = commands.convert(checkpoint, "0.13.0", ["/c.py"])
    assert argv[argv.index("--tp_size") :] == ["--tp_size", "4", "--pp_size", "2"]


def test_quantize_omits_unset_options() -> None:
    checkpoint = Checkpoint.model_validate(
        {
            "family": "llama",
            "dtype": "bfloat16",
            "quantization": {
                "format": "int4_awq",
                "calibration_size": 32,
                "awq_block_size": 128,
                "calibration": CALIBRATION,
            },
        }
    )
    assert commands.quantize(checkpoint, "0.13.0", ["/q.py"])[5:] == [
        *["/q.py", "--model_dir", "/weights", "--output_dir", "/output", "--dtype", "bfloat16"],
        *["--qformat", "int4_awq", "--tp_size", "1", "--calib_size", "32", "--awq_block_size", "128"],
        *["--calib_dataset", "/calibration/cnn_dailymail"],
    ]


def test_quantize_needs_a_recipe() -> None:
    with pytest.raises(ValueError, match="no quantization"):
        commands.quantize(Checkpoint(family="llama", dtype="float16"), "0.13.0", ["/q.py"])


def test_build_engine() -> None:
    assert commands.build_engine(
        {"gemm_plugin": "auto", "fast_build": True, "max_batch_size": 8}, "0.13.0"
    ) == [
        *["trtllm-build", "--checkpoint_dir", "/checkpoint", "--output_dir", "/output"],
        *["--gemm_plugin", "auto", "--fast_build", "--max_batch_size", "8"],
    ]


@pytest.mark.parametrize(
    ("models", "control"),
    [([], []), (["ensemble"], ["--model-control-mode=explicit", "--load-model=ensemble"])],
)
def test_tritonserver(models: list[str], control: list[str]) -> None:
    ranks = commands.of_ranks(
        ports=(1, 2, 3),
        complete_configs=False,
        load_models=models,
        exposure=["--exit-timeout-secs=45"],
        arguments=["--log-verbose=1"],
    )
    argv = commands.tritonserver(*ranks, world_size=1, workers=1)
    assert argv == [
        *["tritonserver", "--model-repository=/release/model_repository", "--disable-auto-complete-config"],
        *["--http-port=1", "--grpc-port=2", "--metrics-port=3", *control, "--exit-timeout-secs=45"],
        "--log-verbose=1",
    ]


def git(directory: Path, *words: str) -> str:
    author = ["-c", "user.name=t", "-c", "user.email=t@t.invalid", "-c", "init.defaultBranch=main"]
    argv = ["git", *author, "-C", str(directory), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with one commit, tagged v1."""
    path = tmp_path / "upstream"
    path.mkdir()
    git(path, "init", "--quiet")
    (path / "file").write_text("content\n", encoding="utf-8")
    git(path, "add", "file")
    git(path, "commit", "--quiet", "--message=one")
    git(path, "tag", "v1")
    return path


def checkout_steps(tmp_path: Path, commit: str, submodules: bool = False) -> list[list[str]]:
    return commands.checkout(
        url="https://upstream.invalid/repository.git",
        tag="v1",
        commit=commit,
        into=str(tmp_path / "into"),
        home=str(tmp_path / "home"),
        mirrors={"https://upstream.invalid/repository.git": f"file://{tmp_path}/upstream"},
        submodules=submodules,
        lfs=submodules,
    )


def test_checkout_is_the_tag_at_its_commit_from_the_mirror(repository: Path, tmp_path: Path) -> None:
    for step in checkout_steps(tmp_path, git(repository, "rev-parse", "v1")):
        subprocess.run(step, check=True, capture_output=True)
    assert (tmp_path / "into/file").read_text("utf-8") == "content\n"
    assert git(tmp_path / "into", "rev-parse", "HEAD") == git(repository, "rev-parse", "v1^{commit}")


def test_moved_tag_fails_before_any_file_is_written(repository: Path, tmp_path: Path) -> None:
    done = [
        subprocess.run(step, capture_output=True).returncode for step in checkout_steps(tmp_path, "e" * 40)
    ]
    # the mirror, init and fetch succeed; the comparison of the commit does not
    assert done[-2:] == [65, 128]
    assert set(done[:-2]) == {0}
    assert not (tmp_path / "into/file").exists()


def test_submodules_come_with_git_lfs_content(tmp_path: Path) -> None:
    steps = checkout_steps(tmp_path, "e" * 40, submodules=True)
    lfs = next(i for i, step in enumerate(steps) if step[-3:] == ["lfs", "install", "--skip-repo"])
    init = next(i for i, step in enumerate(steps) if "init" in step)
    assert lfs < init
    assert steps[-2][-6:] == ["--quiet", "update", "--init", "--recursive", "--depth", "1"]


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("lib.a", POINTER, 65),
        # TensorRT-LLM keeps kernels of attention in LFS as sources
        ("fmha_cubin.cpp", POINTER, 65),
        ("two words.so", POINTER, 65),
        ("lib.a", "!<arch>\n", 0),
        ("picture.png", POINTER, 0),
        ("README.md", "version https://git-lfs.github.com/spec/v1\n", 0),
        ("test_lfs.py", "text\nversion https://git-lfs.github.com/spec/v1\n", 0),
    ],
)
def test_lfs_pointer_in_place_of_a_library_is_detected(
    tmp_path: Path, name: str, content: str, code: int
) -> None:
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / name).write_text(content, encoding="utf-8")
    check = checkout_steps(tmp_path, "e" * 40, submodules=True)[-1]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == code
    assert (name in done.stderr) is (code != 0)


def test_ranks_share_one_mpirun_and_rank_0_is_the_leader() -> None:
    ranks = commands.of_ranks(
        ports=(1, 2, 3),
        complete_configs=False,
        load_models=[],
        exposure=["--model-control-mode=none"],
        arguments=["--x=1"],
    )
    argv = commands.tritonserver(*ranks, world_size=2, workers=2)
    assert argv[:2] == ["mpirun", "--allow-run-as-root"]
    leader, worker, end = " ".join(argv[2:]).split(":")
    assert leader.startswith("-n 1 tritonserver ")
    assert "--load-model" not in leader
    assert "shm-region-prefix-name=prefix0_" in leader
    assert "--load-model=tensorrt_llm --x=1" in worker
    # said twice it would be the last one that counts: a worker that loads everything
    assert "--model-control-mode=none" in leader and "--model-control-mode=none" not in worker
    assert "shm-region-prefix-name=prefix1_" in worker
    assert end == ""


def test_server_that_starts_its_own_workers_has_an_mpirun() -> None:
    ranks = commands.of_ranks(
        ports=(1, 2, 3),
        complete_configs=True,
        load_models=[],
        exposure=["--model-control-mode=none"],
        arguments=["--x=1"],
    )
    argv = commands.tritonserver(*ranks, world_size=1, workers=4)
    assert argv[:5] == ["mpirun", "--allow-run-as-root", "-n", "1", "tritonserver"]
    assert argv[-2:] == ["--x=1", "--backend-config=python,shm-region-prefix-name=prefix0_"]
    assert ":" not in argv and "--disable-auto-complete-config" not in argv
