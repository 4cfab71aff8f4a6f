"""Docker in a sandbox."""

from .compose import DockerComposeStack
from .manager import SandboxDockerManager
from .result import DockerDone, DockerList, DockerResult, DockerText
from .system import DockerEvents

__all__ = [
    "DockerComposeStack",
    "DockerDone",
    "DockerEvents",
    "DockerList",
    "DockerResult",
    "DockerText",
    "SandboxDockerManager",
]
