"""The exceptions of innerdock.

InnerdockError
 ├─ InvalidRequestError          invalid, too_large: the request cannot be right
 ├─ UnsupportedError             unsupported: understood, and not offered
 ├─ AuthenticationError          unauthorized: no API key, or one that is not known
 ├─ PermissionDeniedError        forbidden: a known key that may not do this
 ├─ NotFoundError                not_found
 │   └─ ImageNotFoundError       image_not_found: no registry and no provider has it
 ├─ ConflictError                conflict: the state does not allow it, or the name is taken
 ├─ ResourceExhaustedError       exhausted: out of memory, disk, addresses or quota
 ├─ UnavailableError             unavailable: try again
 │   ├─ ServerNotRunningError    server_not_running: nothing answers; says how to start it
 │   └─ ConnectionLostError      connection_lost: the answer did not arrive
 ├─ InnerdockTimeoutError        timeout (also a TimeoutError)
 │   └─ ProcessTimeoutError      process_timeout: the process goes on
 ├─ ServerError                  internal: the server's log has the cause
 ├─ ImageBuildError              image_build_failed: .step and .log say where
 ├─ SandboxTerminatedError       sandbox_terminated
 ├─ CommandNotFoundError         command_not_found: no such executable in the sandbox
 └─ DockerException
     ├─ DockerDisabledError          docker_disabled: created without docker_enabled
     ├─ DockerNotInstalledError      docker_not_installed: no Docker in the image
     ├─ DockerDaemonFailedError      docker_failed: dockerd exited, or its set-up failed
     ├─ DockerDaemonNotReadyError    docker_timeout: not ready in time (.timeout)
     └─ DockerCommandError           docker_command_failed: .command, .exit_code, .stderr
         ├─ DockerNotFoundError          docker_not_found: no such container, volume, network …
         │   └─ DockerImageNotFoundError docker_image_not_found: neither here nor in the registry
         ├─ DockerConflictError          docker_conflict: a name is taken, a thing is in use
         │   └─ DockerPortInUseError     docker_port_in_use: a published port is taken
         ├─ DockerBuildError             docker_build_failed: .step, .step_exit_code, .log
         ├─ DockerComposeFileError       docker_compose_file: it is missing or wrong
         └─ DockerRegistryError          docker_registry_failed: it answered with an error, or not
             ├─ DockerLoginError         docker_login_failed: credentials missing or refused
             └─ DockerRateLimitError     docker_rate_limited: too many pulls

The words before the colons are the values of ``.code``. Every message says what
happened and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class InnerdockError(Exception):
    """Anything that went wrong. str() is the message: what happened and the next step."""

    default_code = "internal"

    def __init__(
        self, message: str, *, code: str = "", request_id: str = "", status: int = 0
    ) -> None:
        super().__init__(message)
        self.message = message
        """What happened and what to do next."""
        self.code = code or self.default_code
        """What happened, for programs. Codes are never renamed."""
        self.request_id = request_id
        """The request as named in the server's log; empty if it never got there."""
        self.status = status
        """The HTTP status; 0 if the error did not come from the server."""

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    cls: type[InnerdockError], args: tuple[Any, ...], state: dict[str, Any]
) -> InnerdockError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidRequestError(InnerdockError):
    """The request cannot be right, whatever the state."""

    default_code = "invalid"


class UnsupportedError(InnerdockError):
    """Understood, and not offered."""

    default_code = "unsupported"


class AuthenticationError(InnerdockError):
    """No API key, or one that is not known."""

    default_code = "unauthorized"


class PermissionDeniedError(InnerdockError):
    """A known API key that may not do this."""

    default_code = "forbidden"


class NotFoundError(InnerdockError):
    """There is no such thing, or it is another tenant's."""

    default_code = "not_found"


class ImageNotFoundError(NotFoundError):
    """No registry and no provider has the image."""

    default_code = "image_not_found"


class ConflictError(InnerdockError):
    """The state does not allow it, or the name is taken."""

    default_code = "conflict"


class ResourceExhaustedError(InnerdockError):
    """The server is out of memory, disk, addresses or quota."""

    default_code = "exhausted"


class UnavailableError(InnerdockError):
    """Starting, stopping or unreachable: try again."""

    default_code = "unavailable"


class ServerNotRunningError(UnavailableError):
    """Nothing answers at the server's address. The message says how to start it."""

    default_code = "server_not_running"


class ConnectionLostError(UnavailableError):
    """The request was sent and its answer did not arrive."""

    default_code = "connection_lost"


class InnerdockTimeoutError(InnerdockError, TimeoutError):
    """It took longer than was allowed."""

    default_code = "timeout"


class ProcessTimeoutError(InnerdockTimeoutError):
    """The process did not end in time. It goes on; kill() ends it."""

    default_code = "process_timeout"


class ServerError(InnerdockError):
    """A bug or a broken host; the server's log has the cause."""

    default_code = "internal"


class ImageBuildError(InnerdockError):
    """A step of the image's definition failed."""

    default_code = "image_build_failed"

    def __init__(
        self, message: str, *, step: str = "", log: Sequence[str] = (), **rest: Any
    ) -> None:
        super().__init__(message, **rest)
        self.step = step
        """The step that failed, such as ``command 2/3``."""
        self.log = list(log)
        """The last lines that the build printed."""


class SandboxTerminatedError(InnerdockError):
    """The sandbox has ended."""

    default_code = "sandbox_terminated"


class CommandNotFoundError(InnerdockError):
    """There is no such executable in the sandbox."""

    default_code = "command_not_found"


class DockerException(InnerdockError):
    """Anything that is wrong with Docker in a sandbox."""

    default_code = "docker_failed"


class DockerDisabledError(DockerException):
    """The sandbox was created without docker_enabled=True."""

    default_code = "docker_disabled"


class DockerNotInstalledError(DockerException):
    """docker_enabled=True, and the image holds no Docker: use Image().with_docker()."""

    default_code = "docker_not_installed"


class DockerDaemonFailedError(DockerException):
    """dockerd exited, or its set-up failed. The message has the last lines of its log."""

    default_code = "docker_failed"


class DockerDaemonNotReadyError(DockerException):
    """dockerd did not become ready in time."""

    default_code = "docker_timeout"

    def __init__(self, timeout: float, message: str = "", **rest: Any) -> None:
        super().__init__(
            message
            or f"the Docker daemon was not ready after {timeout:g} s; to wait longer, set "
            "instance.docker.daemon_timeout = 60",
            **rest,
        )
        self.timeout = timeout
        """Seconds that were waited."""


class DockerCommandError(DockerException):
    """A docker command failed. Raised by check(), and by methods that return text or lists."""

    default_code = "docker_command_failed"

    def __init__(
        self,
        command: Sequence[str],
        exit_code: int,
        stderr: str = "",
        *,
        hint: str = "",
        **rest: Any,
    ) -> None:
        said = stderr.strip()
        super().__init__(
            f"`{' '.join(command)}` failed with exit code {exit_code}"
            + (f": {said[-2000:]}" if said else "")
            + (f"\n{hint}" if hint else ""),
            **rest,
        )
        self.command = list(command)
        """The command that failed."""
        self.exit_code = exit_code
        """Its exit code."""
        self.stderr = stderr
        """What it wrote to standard error."""
        self.hint = hint
        """What to do next; empty if only the output can tell."""


class DockerNotFoundError(DockerCommandError):
    """There is no such container, volume, network or file."""

    default_code = "docker_not_found"


class DockerImageNotFoundError(DockerNotFoundError):
    """The image is neither in the sandbox nor in its registry."""

    default_code = "docker_image_not_found"


class DockerConflictError(DockerCommandError):
    """A name is taken, or what shall go is in use."""

    default_code = "docker_conflict"


class DockerPortInUseError(DockerConflictError):
    """A port that shall be published is taken."""

    default_code = "docker_port_in_use"


class DockerBuildError(DockerCommandError):
    """A build failed."""

    default_code = "docker_build_failed"

    def __init__(
        self,
        command: Sequence[str],
        exit_code: int,
        stderr: str = "",
        *,
        step: str = "",
        step_exit_code: int | None = None,
        log: Sequence[str] = (),
        **rest: Any,
    ) -> None:
        super().__init__(command, exit_code, stderr, **rest)
        self.step = step
        """The step that failed, such as ``RUN make``; empty if it never came to one."""
        self.step_exit_code = step_exit_code
        """The exit code of that step's command, if it ran one."""
        self.log = list(log)
        """The last lines that the step printed."""


class DockerComposeFileError(DockerCommandError):
    """The Compose file is missing, is no YAML, or says what Compose does not know."""

    default_code = "docker_compose_file"


class DockerRegistryError(DockerCommandError):
    """A registry answered with an error, too late, wrongly, or not at all."""

    default_code = "docker_registry_failed"


class DockerLoginError(DockerRegistryError):
    """A registry wants credentials, or refused those it got."""

    default_code = "docker_login_failed"


class DockerRateLimitError(DockerRegistryError):
    """A registry wants fewer requests."""

    default_code = "docker_rate_limited"


_BY_CODE: dict[str, type[InnerdockError]] = {
    "too_large": InvalidRequestError,
    **{
        cls.default_code: cls
        for cls in (
            InvalidRequestError,
            UnsupportedError,
            AuthenticationError,
            PermissionDeniedError,
            NotFoundError,
            ImageNotFoundError,
            ConflictError,
            ResourceExhaustedError,
            UnavailableError,
            InnerdockTimeoutError,
            ServerError,
            ImageBuildError,
            SandboxTerminatedError,
            CommandNotFoundError,
            DockerDisabledError,
            DockerNotInstalledError,
            DockerDaemonFailedError,
        )
    },
}

_BY_STATUS: dict[int, type[InnerdockError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    410: SandboxTerminatedError,
    413: InvalidRequestError,
    422: UnsupportedError,
    503: UnavailableError,
    504: InnerdockTimeoutError,
    507: ResourceExhaustedError,
}


def error_from(body: Mapping[str, Any], status: int = 0, timeout: float = 0) -> InnerdockError:
    """Returns the exception for an error body of the API.

    A code that this version does not know becomes the class of the HTTP status,
    and keeps its code. timeout, in seconds, goes into DockerDaemonNotReadyError.
    """
    code = str(body.get("code") or "")
    message = str(
        body.get("message") or body.get("detail") or f"the server answered with status {status}"
    )
    request_id = str(body.get("request_id") or "")
    if code == "docker_timeout":
        return DockerDaemonNotReadyError(
            timeout, message, code=code, request_id=request_id, status=status
        )
    cls = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if cls is None:
        cls = ServerError if status >= 500 else InnerdockError
    return cls(message, code=code, request_id=request_id, status=status)
