"""The versions that a host would run."""

from __future__ import annotations

from operations.plan.catalog.version_floors import PLAIN_MAY_BE_NEWER, Component, package_components
from operations.plan.inventory import gateway_settings
from operations.plan.inventory.settings import Settings
from operations.plan.profile.profiles import Profile, stack_of


def components(settings: Settings, profile: Profile, driver: str = "") -> list[tuple[Component, str]]:
    """
    Everything with a floor that a host would run.

    + driver: as nvidia-smi prints it; empty before a host was asked
    """
    stack = stack_of(profile)
    found: list[tuple[Component, str]] = [("triton", stack.triton_release)]
    if profile.kind != "plan":  # whose encoders run on TensorRT alone
        found.append(("tensorrt-llm", stack.tensorrt_llm))
    # the matrix has TensorRT of the image with TensorRT-LLM; the plain one's of the same month may be newer
    plain = profile.kind == "plan" and stack.tensorrt_llm != ""
    if stack.tensorrt and not (plain and stack.release >= PLAIN_MAY_BE_NEWER):
        found.append(("tensorrt", stack.tensorrt))
    if settings.gateway:
        found.append(("nginx", gateway_settings.version(settings.gateway.image)))
    found += package_components({**settings.docker_packages, **settings.nvidia_container_toolkit_packages})
    return [*found, ("driver", driver)] if driver else found
