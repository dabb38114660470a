#!/usr/bin/env python3
"""Lab stand-in for scripts/launch_triton_server.py: starts one tritonserver a rank under mpirun and returns at once.

Like the tool of the same tag it does not wait for the server, nor look whether it lives.
"""

import argparse
import shutil
import subprocess
import sys

VERSION = (0, 0, 0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--world_size", type=int, default=1, help="processes, one a GPU: tp times pp")
    parser.add_argument("--tritonserver", default="/opt/tritonserver/bin/tritonserver")
    parser.add_argument("--grpc_port", default="8001")
    parser.add_argument("--http_port", default="8000")
    parser.add_argument("--metrics_port", default="8002")
    parser.add_argument("--force", "-f", action="store_true", help="start although one runs already")
    parser.add_argument("--log", action="store_true", help="verbose, to the log file")
    parser.add_argument("--log-file", default="triton_log.txt")
    parser.add_argument("--model_repo", default="/tensorrtllm_backend/all_models/gpt")
    parser.add_argument("--tensorrt_llm_model_name", default="tensorrt_llm")
    parser.add_argument("--multi-model", action="store_true", help="orchestrator mode")
    if VERSION >= (0, 11, 0):
        parser.add_argument("--oversubscribe", action="store_true")
    if VERSION >= (0, 13, 0):
        parser.add_argument("--disable-spawn-processes", action="store_true")
        parser.add_argument("--multimodal_gpu0_cuda_mem_pool_bytes", type=int, default=0)
    if VERSION >= (0, 19, 0):
        parser.add_argument("--no-mpi", action="store_true")
    return parser.parse_args()


def rank_command(given: argparse.Namespace, rank: int) -> list[str]:
    command: list[str] = [
        given.tritonserver,
        f"--model-repository={given.model_repo}",
        f"--grpc-port={given.grpc_port}",
        f"--http-port={given.http_port}",
        f"--metrics-port={given.metrics_port}",
        "--disable-auto-complete-config",
        f"--backend-config=python,shm-region-prefix-name=prefix{rank}_",
    ]
    if rank:
        command += ["--model-control-mode=explicit", f"--load-model={given.tensorrt_llm_model_name}"]
    elif given.log:
        command += ["--log-verbose=3", f"--log-file={given.log_file}"]
    return command


def main() -> None:
    given = arguments()
    running = subprocess.run(
        ["pgrep", "-r", "R", "tritonserver"], capture_output=True, text=True, check=False
    )
    if running.stdout and not given.force:
        sys.exit(f"found tritonserver running as {running.stdout.split()}; stop it first, or pass --force")
    mpirun = shutil.which("mpirun")
    if given.world_size == 1 and (mpirun is None or getattr(given, "no_mpi", False)):
        command = rank_command(given, 0)
    elif mpirun is None:
        sys.exit(
            f"found no mpirun, expected one for --world_size {given.world_size}; run inside the serving image"
        )
    else:
        command = [mpirun, "--allow-run-as-root"]
        if getattr(given, "oversubscribe", False):
            command.append("--oversubscribe")
        for rank in range(given.world_size):
            command += ["-n", "1", *rank_command(given, rank), ":"]
    print("[stand-in] starting:", *command, flush=True)
    subprocess.Popen(command)


if __name__ == "__main__":
    main()
