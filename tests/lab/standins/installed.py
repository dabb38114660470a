"""The TensorRT-LLM stand-in in a folder, for tests that run its commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.lab import standins

BIN = Path(__file__).resolve().parent / "bin"
PROMPT = [3, 17, 40, 8]


class Installed:
    """The stand-in at a version, in a folder, with an nvidia-smi that reports some GPUs."""

    def __init__(self, folder: Path, version: str) -> None:
        self.folder, self.version = folder, version
        for name, content in standins.tensorrt_llm_tree(version).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[0] if isinstance(content, tuple) else content)
        (folder / "bin").mkdir()
        (folder / "bin" / "nvidia-smi").symlink_to(BIN / "nvidia-smi")
        self.see("NVIDIA A10:1")

    def see(self, gpus: str) -> None:
        """Set the GPUs that nvidia-smi reports, as NAME:COUNT."""
        (self.folder / "gpus").write_text(gpus + "\n")

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run python3 with these words; it finds the stand-in."""
        environment = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),
            "LAB_GPUS_FILE": f"{self.folder}/gpus",
            "COLUMNS": "200",
            **variables,
        }
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.folder,
            check=False,
        )

    def convert(self, model: Path, *words: str, family: str = "llama") -> subprocess.CompletedProcess[str]:
        """convert_checkpoint.py of a family."""
        (script,) = self.folder.glob(f"examples/**/{family}/convert_checkpoint.py")
        return self.run(str(script), "--model_dir", str(model), "--output_dir", "checkpoint", *words)

    def build(self, *words: str) -> subprocess.CompletedProcess[str]:
        """trtllm-build."""
        return self.run(
            "scripts/trtllm-build", "--checkpoint_dir", "checkpoint", "--output_dir", "engine", *words
        )

    def decode(self, count: int = 12, model: Path | None = None) -> list[int]:
        """The tokens with which PROMPT is continued: by the engine, or by the LLM API with a Hugging Face folder."""
        load = (
            f"load_folder(Path({str(model)!r}))" if model else 'load_engine(Path("engine"), visible_gpus())'
        )
        script = f"""
            from pathlib import Path
            from tensorrt_llm.gpu import visible_gpus
            from tensorrt_llm.runtime.decoder import Sampling
            from tensorrt_llm.runtime.engine import load_engine
            from tensorrt_llm.runtime.folder import load_folder
            decoder = {load}
            print([step.token for step in decoder.generate({PROMPT}, {count}, Sampling())])
        """
        done = self.run("-c", textwrap.dedent(script))
        assert done.returncode == 0, done.stderr
        tokens: list[int] = json.loads(done.stdout.splitlines()[-1])
        return tokens
