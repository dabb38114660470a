"""The checks of the preflight by name, and which of them an inventory may waive."""

from __future__ import annotations

# The checks, in the order in which they are made and shown
CHECKS = (
    *("sudo", "login shell", "operating system", "processor", "version floors", "release"),
    *("shape", "GPU driver", "ECC errors", "memory repairs", "MIG", "persistence mode", "GPU recovery"),
    *("Xid errors", "NVLink", "fabric manager"),
    *("disk space", "inodes", "host memory", "clock", "name resolution"),
    *("source docker", "source toolkit", "source git", "source hub", "source registry"),
    *("source docker hub", "source Python index", "hub token"),
    *("ports", "package locks", "cloud-init", "firewalld", "SELinux", "temporary directories", "umask"),
    *("docker settings", "IP forwarding", "kernel", "kernel fixes"),
)
# What the plan itself refuses cannot be waived
WAIVABLE = tuple(name for name in CHECKS if name not in CHECKS[: CHECKS.index("release") + 1])
