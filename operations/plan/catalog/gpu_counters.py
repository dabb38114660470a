"""The counters that dcgm-exporter is told to show: those of the rules and of the board, in the form of its --collectors."""

from __future__ import annotations

# Beside those of dcgm-exporter's own list (etc/default-counters.csv) two that it leaves out: pending replacements of rows, and
# why a clock is lower.
COUNTERS = (
    ("DCGM_FI_DEV_SM_CLOCK", "gauge", "SM clock frequency (in MHz)."),
    ("DCGM_FI_DEV_MEMORY_TEMP", "gauge", "Memory temperature (in C)."),
    ("DCGM_FI_DEV_GPU_TEMP", "gauge", "GPU temperature (in C)."),
    ("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W)."),
    ("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %)."),
    ("DCGM_FI_DEV_XID_ERRORS", "gauge", "Value of the last XID error encountered."),
    ("DCGM_FI_DEV_FB_FREE", "gauge", "Framebuffer memory free (in MiB)."),
    ("DCGM_FI_DEV_FB_USED", "gauge", "Framebuffer memory used (in MiB)."),
    ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "counter", "Remapped rows for uncorrectable errors."),
    ("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "counter", "Remapped rows for correctable errors."),
    ("DCGM_FI_DEV_ROW_REMAP_FAILURE", "gauge", "Whether remapping of rows has failed."),
    ("DCGM_FI_DEV_ROW_REMAP_PENDING", "gauge", "Whether remapping of rows is pending."),
    ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "gauge", "Why the clocks are lower than they could be (bits)."),
    ("DCGM_FI_DRIVER_VERSION", "label", "Driver version."),
)
# How much of the GPU's parts is at work; the driver gives them only to a program with CAP_SYS_ADMIN
PROFILING = (
    ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "gauge", "Ratio of time the graphics engine is active."),
    ("DCGM_FI_PROF_SM_ACTIVE", "gauge", "Ratio of cycles an SM has at least one warp assigned."),
    ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "gauge", "Ratio of cycles the tensor pipe is active."),
    ("DCGM_FI_PROF_DRAM_ACTIVE", "gauge", "Ratio of cycles the memory interface is active."),
)


def counters(profiling: bool = False) -> str:
    """The file for dcgm-exporter's --collectors."""
    wanted = (*COUNTERS, *PROFILING) if profiling else COUNTERS
    rows = "".join(f"{name}, {kind}, {text}\n" for name, kind, text in wanted)
    return f"# Written by tritonhost: dcgm-exporter --collectors FILE\n{rows}"
