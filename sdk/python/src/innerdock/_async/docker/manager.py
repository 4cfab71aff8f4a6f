"""The Docker manager: everything that can be done with Docker in a sandbox."""

from __future__ import annotations

from ..._errors import InvalidRequestError
from ..._signature import strict
from .clients import OtherClients
from .compose import ComposeCommands
from .images import ImageCommands
from .networks import NetworkCommands, VolumeCommands
from .result import DockerResult
from .system import SystemCommands


@strict
class SandboxDockerManager(
    ComposeCommands, ImageCommands, VolumeCommands, NetworkCommands, SystemCommands, OtherClients
):
    """Runs docker commands in a sandbox that was created with docker_enabled=True.

    Every method first waits until the Docker daemon is ready, daemon_timeout
    seconds at most. What a method returns tells how it is used:

    - DockerResult (run, pull, push, build, save, load, logs, exec, attach, cli and
      most of compose): the command has started. Iterate over it for its progress,
      ``wait()`` for it, ``check()`` that it succeeded.
    - DockerText and DockerList (ps, images, volume_ls, network_ls …): a str or a list;
      a failure raises DockerCommandError.
    - DockerDone (stop, rm, tag, login, volume_create …): whether it succeeded, as a
      bool; ``check()`` raises DockerCommandError if it did not.
    - Values (containers, inspect, list_images, stats …): a failure raises
      DockerCommandError.
    """

    async def cli(
        self, *words: str, cwd: str | None = None, stdin: bool | str | bytes = False
    ) -> DockerResult:
        """Runs any docker command: ``cli("container", "diff", "web")``."""
        if not words:
            raise InvalidRequestError('cli needs a docker command: cli("inspect", "web")')
        return await self._start(list(words), cwd=cwd, stdin=stdin)
