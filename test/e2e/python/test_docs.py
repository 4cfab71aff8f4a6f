"""The marked Python blocks of the documentation, each page as one program."""

from __future__ import annotations

import re

import pytest

from conftest import ROOT, run_program
from innerdock import Image

PAGES = {  # and how many blocks each has, at least
    "guide/quickstart.md": 6,
    "guide/docker-manager.md": 6,
    "guide/snapshots.md": 2,
    "guide/air-gapped.md": 3,
    "reference/python.md": 6,
}
BLOCK = re.compile(r"^<!-- runs -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, host: str, docker_image: Image, tmp_path) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text())
    assert len(blocks) >= PAGES[page]
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks))
    run_program(program)
