"""innerdock for asyncio: the same names as in innerdock, with coroutines. ::

    from innerdock.aio import Image, Sandbox

    image = Image(python_version="python3.11").with_docker()
    async with await Sandbox(image=image, docker_enabled=True).create() as instance:
        result = await instance.docker.run("hello-world")
        await result.wait()
        print(await result.stdout.read())

``success`` and ``output`` of a DockerResult are awaited as they are
(``await result.success``). Streams are no strings here: ``await stream.text()``.
Exceptions and values are those of innerdock. Without ``client=`` connections
are shared within the event loop; ``async with Client() as client`` closes them.
"""

from ._async.client import Client
from ._async.docker import (
    DockerComposeStack,
    DockerDone,
    DockerEvents,
    DockerList,
    DockerResult,
    DockerText,
    SandboxDockerManager,
)
from ._async.fs import SandboxFileSystem
from ._async.image import Image
from ._async.instance import SandboxInstance
from ._async.process import SandboxProcess, SandboxProcessManager
from ._async.sandbox import Sandbox
from ._async.streams import CombinedOutput, InputStream, OutputStream

__all__ = [
    "Client",
    "CombinedOutput",
    "DockerComposeStack",
    "DockerDone",
    "DockerEvents",
    "DockerList",
    "DockerResult",
    "DockerText",
    "Image",
    "InputStream",
    "OutputStream",
    "Sandbox",
    "SandboxDockerManager",
    "SandboxFileSystem",
    "SandboxInstance",
    "SandboxProcess",
    "SandboxProcessManager",
]

for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
