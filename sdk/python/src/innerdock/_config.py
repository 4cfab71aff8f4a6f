"""Where the server is and how to get in: INNERDOCK_HOST and INNERDOCK_API_KEY."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from ._errors import InvalidRequestError

DEFAULT_HOST = "unix:///run/innerdock/innerdock.sock"


@dataclass(frozen=True)
class Address:
    """A server's address: a base URL, and a socket's path if it is a Unix socket."""

    host: str
    base_url: str
    uds: str | None = None
    loopback: bool = True

    @classmethod
    def parse(cls, host: str) -> Address:
        """Parses unix:///path, http://host:port or https://host:port."""
        url = urlsplit(host)
        if url.scheme == "unix" and not url.netloc and url.path.startswith("/"):
            return cls(host, "http://innerdock", uds=url.path)
        if url.scheme in ("http", "https") and url.hostname:
            base = f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"
            return cls(host, base, loopback=_is_loopback(url.hostname))
        raise InvalidRequestError(
            f"{host!r} is no address of an innerdock server; INNERDOCK_HOST is unix:///path, "
            "http://host:port or https://host:port"
        )


def _is_loopback(hostname: str) -> bool:
    if hostname == "localhost":
        return True
    try:
        return ip_address(hostname).is_loopback
    except ValueError:
        return False


def resolve(host: str | None, api_key: str | None) -> tuple[Address, str]:
    """Returns the address and the key to use: the arguments, else the environment's."""
    address = Address.parse(host or os.environ.get("INNERDOCK_HOST") or DEFAULT_HOST)
    key = api_key if api_key is not None else os.environ.get("INNERDOCK_API_KEY", "")
    if key and not address.loopback and address.base_url.startswith("http:"):
        raise InvalidRequestError(
            f"the API key would travel to {address.host} unencrypted; use https://"
        )
    return address, key
