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

from ._errors import (
    AuthenticationError,
    CommandNotFoundError,
    ConflictError,
    ConnectionLostError,
    DockerCommandError,
    DockerDaemonFailedError,
    DockerDaemonNotReadyError,
    DockerDisabledError,
    DockerException,
    DockerNotInstalledError,
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
    ProcessInfo,
    SandboxInfo,
    ServerVersion,
    Status,
)
from ._sync.client import Client
from ._sync.docker import DockerResult, SandboxDockerManager
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
    "DockerCommandError",
    "DockerDaemonFailedError",
    "DockerDaemonNotReadyError",
    "DockerDisabledError",
    "DockerException",
    "DockerNotInstalledError",
    "DockerResult",
    "DockerStatus",
    "FileInfo",
    "Image",
    "ImageBuildError",
    "ImageNotFoundError",
    "InnerdockError",
    "InnerdockTimeoutError",
    "InputStream",
    "InvalidRequestError",
    "NotFoundError",
    "OutputStream",
    "PermissionDeniedError",
    "ProcessInfo",
    "ProcessTimeoutError",
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
    "Status",
    "UnavailableError",
    "UnsupportedError",
    "__version__",
]

# Users read and pickle these as innerdock.Name.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name
