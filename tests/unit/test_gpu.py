from pathlib import Path

import pytest

from operations.plan.gpu import QUERY, Gpu, parse_query

# Read on real machines, reduced to the fields of QUERY; memory without its unit, as `nounits` prints it.
CAPTURES = Path(__file__).resolve().parent / "captures"


def test_one_gpu() -> None:
    assert parse_query((CAPTURES / "h200-x1.csv").read_text("utf-8")) == (
        Gpu(
            0, "NVIDIA H200", "GPU-00000000-0000-4000-8000-000000000000", "9.0", 143771, 143156, "580.159.04"
        ),
    )


def test_four_gpus() -> None:
    found = parse_query((CAPTURES / "h200-x4.csv").read_text("utf-8"))
    assert [gpu.index for gpu in found] == [0, 1, 2, 3]
    assert {(gpu.name, gpu.compute_capability) for gpu in found} == {("NVIDIA H200", "9.0")}
    assert len({gpu.uuid for gpu in found}) == 4


def test_a_partitioned_gpu_is_known() -> None:
    fields = "NVIDIA H200, GPU-0, 9.0, 143771, 143156, 580.159.04"
    found = parse_query(f"0, {fields}, Disabled\n1, {fields}, Enabled\n2, {fields}, [N/A]\n")
    assert [gpu.mig for gpu in found] == [False, True, False]


@pytest.mark.parametrize("text", ["", "\n", "\n\n"])
def test_no_output_is_no_gpu(text: str) -> None:
    assert parse_query(text) == ()


@pytest.mark.parametrize("memory", ["[N/A]", "[Insufficient Permissions]"])
def test_memory_that_is_not_told_is_none(memory: str) -> None:
    (found,) = parse_query(f"0, NVIDIA GB10, GPU-0, 12.1, {memory}, {memory}, 580.95.05, [N/A]")
    assert (found.memory_total_mib, found.memory_free_mib) == (0, 0)


@pytest.mark.parametrize(
    "text",
    [
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
        "No devices were found",
        "Failed to initialize NVML: Driver/library version mismatch",
        "Unable to determine the device handle for GPU0000:65:00.0: Unknown Error",
        "index, name, uuid, compute_cap, memory.total [MiB], memory.free [MiB], driver_version, mig.mode.current",
        "0, NVIDIA A10",
    ],
)
def test_a_broken_driver_s_message_is_not_taken_for_a_gpu(text: str) -> None:
    with pytest.raises(ValueError, match="instead of a GPU"):
        parse_query(text)


def test_the_query_asks_for_plain_values() -> None:
    assert QUERY.endswith("--format=csv,noheader,nounits")
