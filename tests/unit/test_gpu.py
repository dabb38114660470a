from pathlib import Path

import pytest

from operations.plan.capacity.gpu import QUERY, Answer, Gpu, parse_query, read_query, refusal

# Read on real machines, reduced to the fields of QUERY; memory without its unit, as `nounits` prints it.
CAPTURES = Path(__file__).resolve().parent / "captures"


def test_one_gpu() -> None:
    assert read_query((CAPTURES / "h200-x1.csv").read_text("utf-8")).gpus == (
        Gpu(
            0, "NVIDIA H200", "GPU-00000000-0000-4000-8000-000000000000", "9.0", 143771, 143156, "580.159.04"
        ),
    )


def test_four_gpus() -> None:
    found = parse_query((CAPTURES / "h200-x4.csv").read_text("utf-8"))
    assert [gpu.index for gpu in found] == [0, 1, 2, 3]
    assert {(gpu.name, gpu.compute_capability) for gpu in found} == {("NVIDIA H200", "9.0")}
    assert len({gpu.uuid for gpu in found}) == 4


def test_partitioned_gpu_is_recognized() -> None:
    fields = "NVIDIA H200, GPU-0, 9.0, 143771, 143156, 580.159.04"
    found = read_query(f"0, {fields}, Disabled\n1, {fields}, Enabled\n2, {fields}, [N/A]\n").gpus
    assert [gpu.mig for gpu in found] == [False, True, False]


@pytest.mark.parametrize("text", ["", "\n", "\n\n"])
def test_empty_output_means_no_gpu(text: str) -> None:
    assert read_query(text) == Answer()


@pytest.mark.parametrize("memory", ["[N/A]", "[Insufficient Permissions]"])
def test_unreported_memory_is_zero(memory: str) -> None:
    (found,) = read_query(f"0, NVIDIA GB10, GPU-0, 12.1, {memory}, {memory}, 580.95.05, [N/A]").gpus
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
def test_driver_error_is_not_read_as_a_gpu(text: str) -> None:
    found = read_query(text)
    assert found.gpus == ()
    assert "instead of a GPU" in found.problem
    with pytest.raises(ValueError, match="instead of a GPU"):
        parse_query(text)


GPU_LINE = "0, NVIDIA A10, GPU-0, 8.6, 23028, 22500, 580.95.05, [N/A]"


# https://github.com/huggingface/candle/issues/733
def test_nvidia_smi_without_a_field_means_an_old_driver() -> None:
    found = read_query('Field "compute_cap" is not a valid field to query.\n\n')
    said = str(refusal(found.problem))
    assert said.startswith("GPU driver: found an nvidia-smi that does not know compute_cap, expected that of")
    assert "510 or later" in said
    assert "too old" in said
    assert "working" not in said


LOST = "Unable to determine the device handle for GPU0000:65:00.0: GPU is lost.  Reboot the system to recover this GPU"


@pytest.mark.parametrize("text", [LOST, f"{GPU_LINE}\n{LOST}\n", f"{LOST}\n{GPU_LINE}\n"])
def test_message_of_a_lost_gpu_is_shown_completely(text: str) -> None:
    said = str(refusal(read_query(text).problem))
    assert "Reboot the system to recover this GPU" in said
    assert "..." not in said


def test_driver_updated_while_loaded_needs_a_reboot() -> None:
    said = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95"
    assert "reboot the host" in str(refusal(read_query(said).problem))


@pytest.mark.parametrize("value", ["[Unknown Error]", "[N/A]", "[Not Supported]", "[GPU is lost]", ""])
@pytest.mark.parametrize("place", [1, 2, 3, 6])
def test_missing_value_of_a_required_field_is_named(value: str, place: int) -> None:
    fields = GPU_LINE.replace("0, ", "7, ", 1).split(", ")
    name = QUERY.partition("=")[2].split(" ")[0].split(",")[place]
    fields[place] = value
    found = read_query(f"{GPU_LINE}\n{', '.join(fields)}\n")
    assert found.problem == f"GPU 7: nvidia-smi says {value or 'nothing'} for {name}"
    assert found.gpus == ()


@pytest.mark.parametrize("value", ["[Unknown Error]", "[GPU is lost]", "[GPU requires reset]"])
def test_fault_in_any_field_is_reported(value: str) -> None:
    assert value in read_query(GPU_LINE.replace("23028", value)).problem


# nvidia-smi says this behind its answer, and ends with 14
def test_warning_beside_gpus_is_kept_and_hides_no_gpu() -> None:
    warning = "WARNING: infoROM is corrupted at gpu 0000:00:1E.0"
    found = read_query(f"{GPU_LINE}\n{warning}\n")
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA A10"]
    assert (found.problem, found.remarks) == ("", (warning,))


def test_query_requests_plain_values() -> None:
    assert QUERY.endswith("--format=csv,noheader,nounits")
