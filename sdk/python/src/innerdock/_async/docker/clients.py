"""Where other Docker clients of this machine find the daemon."""

from __future__ import annotations

from ..._errors import InvalidRequestError
from ..._tunnel import Endpoint


class OtherClients:
    """A DOCKER_HOST, and the address of published ports."""

    _endpoint: Endpoint | None = None

    @property
    def host(self) -> str:
        """Where other Docker clients of this machine reach the daemon: a DOCKER_HOST.

        ``docker.DockerClient(base_url=instance.docker.host)``. Where the server is
        on another machine, a thread of this process forwards until terminate().
        """
        return self._reachable().host

    @property
    def publish_address(self) -> str:
        """Where the ports that containers publish are reached from this machine."""
        return self._reachable().publish_address

    def _reachable(self) -> Endpoint:
        if self._endpoint is None:
            raise InvalidRequestError("this manager belongs to no instance")
        return self._endpoint
