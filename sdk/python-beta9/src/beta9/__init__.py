"""The name beta9 for innerdock."""

import innerdock
from innerdock import *
from innerdock import aio

__all__ = [*innerdock.__all__, "aio"]  # noqa: PLE0604
