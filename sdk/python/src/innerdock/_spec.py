"""From the arguments of Sandbox() to the body of POST /v1/sandboxes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Union

from ._errors import InvalidRequestError, UnsupportedError

Quantity = Union[str, int]

# Parameters of beta9's Sandbox that have no meaning here, each with the next step.
_BETA9 = {
    "gpu_count": "this server offers no GPU",
    "keep_warm_seconds": "a sandbox lives until terminate(); pass -1 or leave it out",
    "authorized": "access is decided by the server's API keys",
    "volumes": "use instance.fs, or instance.docker.volume_create()",
    "allow_list": "there is no network that reaches these alone; block_network=True closes it, "
    "allow_private= opens private networks besides the internet",
    "disks": "use disk= for the size of the writable disk",
    "secrets": "pass them with env=",
    "sync_local_dir": "use instance.fs.upload_file()",
    "ports": "publish ports of containers with instance.docker.run(ports=…)",
    "pool": "there is one pool",
    "allow_marketplace": "there is no marketplace",
    "context": "pass client=Client(host=…, api_key=…)",
}


def refuse(extra: Mapping[str, Any]) -> None:
    """Raises for parameters that Sandbox does not have.

    A parameter of beta9 is accepted as long as it asks for nothing.
    """
    for name, value in extra.items():
        if name not in _BETA9:
            raise TypeError(f"Sandbox() got an unexpected keyword argument {name!r}")
        if value and not (name == "keep_warm_seconds" and value == -1):
            raise UnsupportedError(f"Sandbox({name}=…) is not supported: {_BETA9[name]}")


def cores(cpu: float | int | str) -> float:
    """Returns cpu in cores; "500m" is half a core."""
    number: float = math.nan
    try:
        if isinstance(cpu, str) and cpu.endswith("m"):
            number = float(cpu[:-1]) / 1000
        elif not isinstance(cpu, bool):
            number = float(cpu)
    except (TypeError, ValueError):
        pass
    if not math.isfinite(number) or number <= 0:
        raise InvalidRequestError(f"cpu={cpu!r}: a number of cores above 0, such as 0.5 or 2")
    return number


def size(name: str, value: Quantity) -> str:
    """Returns a size as the API takes it; a number is MiB."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise InvalidRequestError(
            f'{name}={value!r}: a size such as "512Mi" or "4Gi", or a number of MiB above 0'
        )
    return f"{value}Mi"


def strings(name: str, values: Iterable[str]) -> list[str]:
    """Returns values as a list of strings."""
    if isinstance(values, str):
        raise InvalidRequestError(f"{name} is a list of strings, not one string: {values!r}")
    return [str(value) for value in values]
