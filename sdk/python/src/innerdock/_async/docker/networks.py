"""Volumes and networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

from ... import _dockerargs as args
from ..._dockerargs import Names
from ..._dockermodels import DockerNetwork, DockerVolume
from ..._signature import strict
from .daemon import DaemonCommands
from .result import DockerDone, DockerList, DockerText


@strict
class VolumeCommands(DaemonCommands):
    """Commands on volumes."""

    async def volume_create(
        self, name: str, driver: str | None = None, labels: Mapping[str, Any] | None = None
    ) -> DockerDone:
        """Creates a volume."""
        return await self._done(
            [
                "volume",
                "create",
                *args.value("--driver", driver),
                *args.pairs("--label", labels),
                args.name("a volume", name),
            ]
        )

    @overload
    async def volume_ls(self, quiet: Literal[False] = False) -> DockerText: ...

    @overload
    async def volume_ls(self, quiet: Literal[True]) -> DockerList: ...

    @overload
    async def volume_ls(self, quiet: bool = False) -> DockerText | DockerList: ...

    async def volume_ls(self, quiet: bool = False) -> DockerText | DockerList:
        """Lists the volumes, as a table. quiet=True: a list of their names."""
        words = ["volume", "ls"]
        return await self._list([*words, "--quiet"]) if quiet else await self._text(words)

    async def list_volumes(self) -> list[DockerVolume]:
        """Returns the volumes as values."""
        names = list(await self.volume_ls(quiet=True))
        found = await self._inspect("volume", names, missing_ok=True)
        return [DockerVolume.from_json(item) for item in found]

    async def volume_inspect(self, name: Names) -> DockerText:
        """Describes one or several volumes, as JSON; ``list_volumes()`` returns values."""
        return await self._text(["volume", "inspect", *args.names("a volume", name)])

    async def volume_rm(self, name: Names, force: bool = False) -> DockerDone:
        """Removes one or several volumes."""
        return await self._done(
            ["volume", "rm", *args.flag("--force", force), *args.names("a volume", name)]
        )


@strict
class NetworkCommands(DaemonCommands):
    """Commands on networks."""

    async def network_create(
        self,
        name: str,
        driver: str | None = None,
        subnet: str | None = None,
        internal: bool = False,
        labels: Mapping[str, Any] | None = None,
    ) -> DockerDone:
        """Creates a network; containers on it find each other by name."""
        return await self._done(
            [
                "network",
                "create",
                *args.value("--driver", driver),
                *args.value("--subnet", subnet),
                *args.flag("--internal", internal),
                *args.pairs("--label", labels),
                args.name("a network", name),
            ]
        )

    @overload
    async def network_ls(self, quiet: Literal[False] = False) -> DockerText: ...

    @overload
    async def network_ls(self, quiet: Literal[True]) -> DockerList: ...

    @overload
    async def network_ls(self, quiet: bool = False) -> DockerText | DockerList: ...

    async def network_ls(self, quiet: bool = False) -> DockerText | DockerList:
        """Lists the networks, as a table. quiet=True: a list of their IDs."""
        words = ["network", "ls"]
        return await self._list([*words, "--quiet"]) if quiet else await self._text(words)

    async def list_networks(self) -> list[DockerNetwork]:
        """Returns the networks as values."""
        ids = list(await self.network_ls(quiet=True))
        found = await self._inspect("network", ids, missing_ok=True)
        return [DockerNetwork.from_json(item) for item in found]

    async def network_inspect(self, name: Names) -> DockerText:
        """Describes one or several networks, as JSON; ``list_networks()`` returns values."""
        return await self._text(["network", "inspect", *args.names("a network", name)])

    async def network_connect(
        self, network: str, container: str, aliases: Names = ()
    ) -> DockerDone:
        """Connects a container to a network; aliases are further names of it there."""
        return await self._done(
            [
                "network",
                "connect",
                *args.repeated("--alias", args.some("a host", aliases)),
                args.name("a network", network),
                args.name("a container", container),
            ]
        )

    async def network_disconnect(
        self, network: str, container: str, force: bool = False
    ) -> DockerDone:
        """Disconnects a container from a network."""
        return await self._done(
            [
                "network",
                "disconnect",
                *args.flag("--force", force),
                args.name("a network", network),
                args.name("a container", container),
            ]
        )

    async def network_rm(self, name: Names) -> DockerDone:
        """Removes one or several networks."""
        return await self._done(["network", "rm", *args.names("a network", name)])
