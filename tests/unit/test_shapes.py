import pytest

from operations.plan.errors import PlanError
from operations.plan.shapes import SHAPES, Shape, shape

# nvidia-smi --query-gpu=name,memory.total of each, as public reports show it
REPORTED = {
    "B200": ("NVIDIA B200", 183359),
    "H200": ("NVIDIA H200", 143771),
    "H100": ("NVIDIA H100 80GB HBM3", 81559),
    "A100 40": ("NVIDIA A100-SXM4-40GB", 40960),
    "A100 80": ("NVIDIA A100-SXM4-80GB", 81920),
    "L40S": ("NVIDIA L40S", 46068),
    "A10": ("NVIDIA A10", 23028),
    "V100": ("Tesla V100-SXM2-16GB", 16160),
    "P100": ("Tesla P100-SXM2-16GB", 16280),
}


def kind(of: Shape) -> str:
    return f"{of.gpu} {of.gpu_memory_gib}" if of.gpu == "A100" else of.gpu


@pytest.mark.parametrize("found", SHAPES.values(), ids=lambda found: found.name)
def test_a_shape_has_its_own_gpus_and_nobody_else_s(found: Shape) -> None:
    matching = {name for name, (gpu, memory) in REPORTED.items() if found.has_gpu(gpu, memory)}
    assert matching == {kind(found)}


def test_a_driver_that_does_not_say_the_memory_is_asked_for_the_name_alone() -> None:
    assert SHAPES["BM.GPU4.8"].has_gpu("NVIDIA A100-SXM4-80GB", 0)
    assert not SHAPES["BM.GPU.A10.4"].has_gpu("NVIDIA A100-SXM4-80GB", 0)
    assert not SHAPES["BM.GPU.A10.4"].has_gpu("NVIDIA A10G", 0)


@pytest.mark.parametrize("found", SHAPES.values(), ids=lambda found: found.name)
def test_the_number_of_gpus_is_the_last_of_the_name_s(found: Shape) -> None:
    assert found.name.endswith(f".{found.gpu_count}")
    assert (found.local_nvme.count == 0) == (found.local_nvme.total_tb == 0)
    # only bare metal has local disks and NVSwitch among these
    if found.name.startswith("VM."):
        assert found.local_nvme.count == 0
        assert not found.nvswitch


def test_a_misspelt_shape_is_refused_with_the_nearest_one_and_the_list() -> None:
    with pytest.raises(PlanError) as caught:
        shape("BM.GPU4.9", "gpu-1: shape")
    text = str(caught.value)
    assert text.startswith("gpu-1: shape: found BM.GPU4.9, expected an OCI shape with NVIDIA GPUs")
    assert "did you mean BM.GPU4.8?" in text
    assert all(name in text for name in SHAPES)
    assert "\n" not in text


@pytest.mark.parametrize("name", ["", "x" * 5000, "MI300X", "BM.Standard.E4.128"])
def test_a_name_that_is_no_gpu_shape_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(PlanError, match=r"known: BM\.GPU\.B200\.8, .*VM\.GPU2\.1"):
        shape(name, "here")


def test_a_known_shape_is_found() -> None:
    found = shape("BM.GPU.A100-v2.8", "here")
    assert (found.gpu, found.gpu_count, found.gpu_memory_gib, found.nvswitch) == ("A100", 8, 80, True)
    assert (found.local_nvme.count, found.local_nvme.total_tb) == (4, 27.2)
