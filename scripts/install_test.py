"""The installation that README.md describes, in an environment of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*args: object) -> str:
    command = [str(a) for a in args]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pip_install(tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path)
    python = tmp_path / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet")
    run(*pip, ROOT / "sdk" / "python", ROOT / "sdk" / "python-beta9")
    code = (
        "import beta9, innerdock, pathlib; from beta9 import Image, Sandbox;"
        "assert Image is innerdock.Image and Sandbox is innerdock.Sandbox;"
        "print(pathlib.Path(innerdock.__file__).parent, pathlib.Path(beta9.__file__).parent)"
    )
    for directory in run(python, "-I", "-c", code).split():
        assert directory.startswith(str(tmp_path)), directory
        assert (Path(directory) / "py.typed").exists(), directory
