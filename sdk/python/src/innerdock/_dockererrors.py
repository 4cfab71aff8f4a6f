"""What a docker command that failed says about why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ._errors import (
    DockerBuildError,
    DockerCommandError,
    DockerComposeFileError,
    DockerConflictError,
    DockerImageNotFoundError,
    DockerLoginError,
    DockerNotFoundError,
    DockerPortInUseError,
    DockerRateLimitError,
    DockerRegistryError,
)

LOG_LINES = 50
"""Lines of a failed step that its error keeps."""


class _Rule(NamedTuple):
    pattern: str
    kind: type[DockerCommandError]
    hint: str


# In this order: the first that is found in standard error decides.
_RULES = [
    _Rule(
        r"port is already allocated|address already in use",
        DockerPortInUseError,
        "Publish another port, or remove the container that has this one: docker.ps() shows it.",
    ),
    _Rule(
        r"toomanyrequests|429 Too Many Requests|pull rate limit",
        DockerRateLimitError,
        "Wait, or log in with docker.login(): registries allow more to those whom they know.",
    ),
    _Rule(
        r"manifest unknown|manifest for .* not found|pull access denied|repository does not exist"
        r"|name unknown|No such image|image does not exist locally|: not found$",
        DockerImageNotFoundError,
        "Check the image's name and tag; if it is private, docker.login() first.",
    ),
    _Rule(
        r"unauthorized|incorrect username or password|no basic auth credentials"
        r"|authentication required|denied: requested access|401 Unauthorized|403 Forbidden",
        DockerLoginError,
        "Log in with docker.login(username, password, registry); check the name of the image too.",
    ),
    _Rule(
        r"no such host|connection refused|i/o timeout|TLS handshake timeout|network is unreachable"
        r"|Client\.Timeout|context deadline exceeded|unexpected EOF|connection reset by peer"
        r"|(unexpected|received unexpected) (HTTP )?status|5\d\d (Internal|Bad|Service|Gateway)"
        r"|filesystem layer verification failed|error pulling image|failed to do request",
        DockerRegistryError,
        "The registry cannot be reached or is out of order: try again, and see whether the "
        "sandbox's network allows it.",
    ),
    _Rule(
        r"is already in use by container|already exists|is in use|is using its referenced image"
        r"|volume is in use|has active endpoints|cannot remove a running container"
        r"|stop the container before|You cannot remove|conflict: ",
        DockerConflictError,
        "Choose another name, or remove what has it or uses it; force=True where it is offered.",
    ),
    _Rule(
        r"[Nn]o such (container|object|volume|network|service|plugin|exec)|network .* not found"
        r"|Could not find the file|no such (file or )?directory",
        DockerNotFoundError,
        "docker.ps(all=True), docker.volume_ls() and docker.network_ls() show what there is.",
    ),
]

_COMPOSE_FILE = re.compile(
    r"^yaml: |^validating |^parsing |no configuration file provided"
    r"|^open .*: no such file or directory$|undefined (service|volume|network|config|secret)"
    r"|has neither an image nor a build|additional propert|invalid compose project"
    r"|depends on undefined|undefined dependency",
    re.MULTILINE | re.IGNORECASE,
)
_DAEMON = re.compile(r"^(docker: )?(Error response from daemon|Error: No such)", re.MULTILINE)
_STEP_FAILED = re.compile(r"^#(\d+) ERROR: ", re.MULTILINE)
_STEP_PLACE = re.compile(r"^\[[^\]]*\] ")
_STEP_CODE = re.compile(r"did not complete successfully: exit code: (\d+)")
_OUTPUT = re.compile(r"^\d+\.\d+ ")
_PAINT = re.compile(r"\x1b\[(?:91|0)m")  # the legacy builder's, around what is standard error
_LEGACY = re.compile(r"^The command '(.+)' returned a non-zero code: (\d+)", re.MULTILINE | re.S)


def failure(command: Sequence[str], exit_code: int, stdout: str, stderr: str) -> DockerCommandError:
    """Returns the exception for a command that failed."""
    verb = _verb(command)
    compose = command[1:2] == ["compose"]
    rule = _rule(verb, compose, exit_code, stderr)
    if _is_build(verb, compose, stderr):
        step, code, log = _failed_step(stdout, stderr)
        return DockerBuildError(
            command,
            exit_code,
            stderr,
            step=step,
            step_exit_code=code,
            log=log,
            hint=(rule.hint if rule and not step.startswith("RUN ") else "")
            or "The step's own output says why; .step, .step_exit_code and .log hold it.",
        )
    if compose and _COMPOSE_FILE.search(stderr):
        return DockerComposeFileError(
            command,
            exit_code,
            stderr,
            hint="Mend the Compose file, or say where it is with file= and cwd=; "
            "docker.compose_config() checks it.",
        )
    if rule is None:
        return DockerCommandError(command, exit_code, stderr)
    return rule.kind(command, exit_code, stderr, hint=rule.hint)


def _rule(verb: str, compose: bool, exit_code: int, stderr: str) -> _Rule | None:
    # What a program in a container prints is its own affair.
    programs = verb in ("run", "exec", "logs", "attach", "start")
    if programs and not compose and exit_code != 125 and not _DAEMON.match(stderr):
        return None
    for rule in _RULES:
        if re.search(rule.pattern, stderr, re.MULTILINE):
            return rule
    return None


def _verb(command: Sequence[str]) -> str:
    """Returns run of docker run, and up of docker compose --file x up."""
    words = list(command[1:])
    if words[:1] != ["compose"]:
        return words[0] if words else ""
    words = words[1:]
    while words and words[0].startswith("-"):
        words = words[2:]
    return words[0] if words else ""


def _is_build(verb: str, compose: bool, stderr: str) -> bool:
    if compose:
        return verb in ("build", "up", "run") and "failed to solve" in stderr
    return verb == "build"


def _failed_step(stdout: str, stderr: str) -> tuple[str, int | None, list[str]]:
    legacy = _LEGACY.search(stderr)
    if legacy:
        steps = re.findall(r"^Step \d+/\d+ : (.*)$", stdout, re.MULTILINE)
        said = _PAINT.sub("", stdout.rpartition("---> Running in ")[2])
        lines = said.splitlines()[1:]
        step = steps[-1] if steps else legacy.group(1)
        return step, int(legacy.group(2)), lines[-LOG_LINES:]
    shown = f"{stdout}\n{stderr}"  # Compose shows progress on the one or the other
    code = _STEP_CODE.search(shown)
    number = _STEP_FAILED.search(shown)
    if number is None:
        return "", None, stderr.strip().splitlines()[-LOG_LINES:]
    lines = re.findall(rf"^#{number[1]} (.*)$", shown, re.MULTILINE)
    step = next((_STEP_PLACE.sub("", line) for line in lines if not _OUTPUT.match(line)), "")
    log = [_OUTPUT.sub("", line) for line in lines if _OUTPUT.match(line)]
    return step, int(code[1]) if code else None, log[-LOG_LINES:]
