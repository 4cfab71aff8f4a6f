"""innerdock: gVisor sandboxes with a real Docker inside. ::

    from innerdock import Image, Sandbox

    image = Image(python_version="python3.11").with_docker()
    with Sandbox(image=image, docker_enabled=True).create() as instance:
        result = instance.docker.run("hello-world")
        result.wait()
        print(result.stdout.read())

The same for asyncio is in ``innerdock.aio``. Errors are subclasses of
InnerdockError; ``help(innerdock.InnerdockError)`` and docs/reference/python.md
list them.
"""

from ._dockermodels import (
    Container,
    ContainerStats,
    DiskUsage,
    DockerEvent,
    DockerImage,
    DockerInfo,
    DockerNetwork,
    DockerVersion,
    DockerVolume,
    Endpoint,
    Mount,
    PublishedPort,
)
from ._errors import (
    AuthenticationError,
    CommandNotFoundError,
    ConflictError,
    ConnectionLostError,
    DockerBuildError,
    DockerCommandError,
    DockerComposeFileError,
    DockerConflictError,
    DockerDaemonFailedError,
    DockerDaemonNotReadyError,
    DockerDisabledError,
    DockerException,
    DockerImageNotFoundError,
    DockerLoginError,
    DockerNotFoundError,
    DockerNotInstalledError,
    DockerPortInUseError,
    DockerRateLimitError,
    DockerRegistryError,
    ImageBuildError,
    ImageNotFoundError,
    InnerdockError,
    InnerdockTimeoutError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProcessTimeoutError,
    ResourceExhaustedError,
    SandboxTerminatedError,
    ServerError,
    ServerNotRunningError,
    UnavailableError,
    UnsupportedError,
)
from ._models import (
    BuildEvent,
    BuiltImage,
    CodeResult,
    DockerStatus,
    FileInfo,
    PoolInfo,
    ProcessInfo,
    SandboxInfo,
    ServerVersion,
    SnapshotInfo,
    Status,
    TemplateInfo,
)
from ._sync.client import Client
from ._sync.docker import (
    DockerComposeStack,
    DockerDone,
    DockerEvents,
    DockerList,
    DockerResult,
    DockerText,
    SandboxDockerManager,
)
from ._sync.fs import SandboxFileSystem
from ._sync.image import Image
from ._sync.instance import SandboxInstance
from ._sync.process import SandboxProcess, SandboxProcessManager
from ._sync.sandbox import Sandbox
from ._sync.streams import CombinedOutput, InputStream, OutputStream
from ._version import __version__

__all__ = [
    "AuthenticationError",
    "BuildEvent",
    "BuiltImage",
    "Client",
    "CodeResult",
    "CombinedOutput",
    "CommandNotFoundError",
    "ConflictError",
    "ConnectionLostError",
    "Container",
    "ContainerStats",
    "DiskUsage",
    "DockerBuildError",
    "DockerCommandError",
    "DockerComposeFileError",
    "DockerComposeStack",
    "DockerConflictError",
    "DockerDaemonFailedError",
    "DockerDaemonNotReadyError",
    "DockerDisabledError",
    "DockerDone",
    "DockerEvent",
    "DockerEvents",
    "DockerException",
    "DockerImage",
    "DockerImageNotFoundError",
    "DockerInfo",
    "DockerList",
    "DockerLoginError",
    "DockerNetwork",
    "DockerNotFoundError",
    "DockerNotInstalledError",
    "DockerPortInUseError",
    "DockerRateLimitError",
    "DockerRegistryError",
    "DockerResult",
    "DockerStatus",
    "DockerText",
    "DockerVersion",
    "DockerVolume",
    "Endpoint",
    "FileInfo",
    "Image",
    "ImageBuildError",
    "ImageNotFoundError",
    "InnerdockError",
    "InnerdockTimeoutError",
    "InputStream",
    "InvalidRequestError",
    "Mount",
    "NotFoundError",
    "OutputStream",
    "PermissionDeniedError",
    "PoolInfo",
    "ProcessInfo",
    "ProcessTimeoutError",
    "PublishedPort",
    "ResourceExhaustedError",
    "Sandbox",
    "SandboxDockerManager",
    "SandboxFileSystem",
    "SandboxInfo",
    "SandboxInstance",
    "SandboxProcess",
    "SandboxProcessManager",
    "SandboxTerminatedError",
    "ServerError",
    "ServerNotRunningError",
    "ServerVersion",
    "SnapshotInfo",
    "Status",
    "TemplateInfo",
    "UnavailableError",
    "UnsupportedError",
    "__version__",
]

# Users read and pickle these as innerdock.Name.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name
