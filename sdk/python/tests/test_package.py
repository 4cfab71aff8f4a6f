"""What the package promises to the outside."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import innerdock
from innerdock import aio
from innerdock._strings import SyncResultLike

ROOT = Path(__file__).parents[1]

EXPORTED = [
    "AuthenticationError",
    "BuildEvent",
    "BuiltImage",
    "Client",
    "CodeResult",
    "CombinedOutput",
    "CommandNotFoundError",
    "ConflictError",
    "ConnectionLostError",
    "Container",
    "ContainerStats",
    "DiskUsage",
    "DockerBuildError",
    "DockerCommandError",
    "DockerComposeFileError",
    "DockerComposeStack",
    "DockerConflictError",
    "DockerDaemonFailedError",
    "DockerDaemonNotReadyError",
    "DockerDisabledError",
    "DockerDone",
    "DockerEvent",
    "DockerEvents",
    "DockerException",
    "DockerImage",
    "DockerImageNotFoundError",
    "DockerInfo",
    "DockerList",
    "DockerLoginError",
    "DockerNetwork",
    "DockerNotFoundError",
    "DockerNotInstalledError",
    "DockerPortInUseError",
    "DockerRateLimitError",
    "DockerRegistryError",
    "DockerResult",
    "DockerStatus",
    "DockerText",
    "DockerVersion",
    "DockerVolume",
    "Endpoint",
    "FileInfo",
    "Image",
    "ImageBuildError",
    "ImageNotFoundError",
    "InnerdockError",
    "InnerdockTimeoutError",
    "InputStream",
    "InvalidRequestError",
    "Mount",
    "NotFoundError",
    "OutputStream",
    "PermissionDeniedError",
    "PoolInfo",
    "ProcessInfo",
    "ProcessTimeoutError",
    "PublishedPort",
    "ResourceExhaustedError",
    "Sandbox",
    "SandboxDockerManager",
    "SandboxFileSystem",
    "SandboxInfo",
    "SandboxInstance",
    "SandboxProcess",
    "SandboxProcessManager",
    "SandboxTerminatedError",
    "ServerError",
    "ServerNotRunningError",
    "ServerVersion",
    "SnapshotInfo",
    "Status",
    "TemplateInfo",
    "UnavailableError",
    "UnsupportedError",
    "__version__",
]


def test_exported_members() -> None:
    assert sorted(innerdock.__all__) == sorted(EXPORTED)
    public = {name for name in vars(innerdock) if not name.startswith("_")}
    modules = {name for name in public if inspect.ismodule(getattr(innerdock, name))}
    assert public - modules == set(EXPORTED) - {"__version__"}
    assert set(aio.__all__) <= set(EXPORTED)


def test_the_alias() -> None:
    beta9 = importlib.import_module("beta9")
    assert set(beta9.__all__) == {*EXPORTED, "aio"}
    assert beta9.Sandbox is innerdock.Sandbox
    assert beta9.Image is innerdock.Image


def test_sync_is_generated() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "unasync.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_twins_have_the_same_methods() -> None:
    strings = set(dir(SyncResultLike))  # str() cannot await
    for name in aio.__all__:
        methods = [
            {n for n in dir(getattr(module, name)) if not n.startswith("_")} - strings
            for module in (innerdock, aio)
        ]
        assert methods[0] == methods[1], name


@pytest.mark.parametrize("name", [n for n in EXPORTED if n != "__version__"])
def test_everything_is_documented(name: str) -> None:
    cls = getattr(innerdock, name)
    assert cls.__doc__, name
    for method, value in vars(cls).items():
        if not method.startswith("_") and (
            inspect.isfunction(value) or isinstance(value, property)
        ):
            assert value.__doc__, f"{name}.{method}"


def test_docker_enabled_is_documented_as_promised() -> None:
    doc = inspect.getdoc(innerdock.Sandbox) or ""
    for line in (
        "Enable Docker-in-Docker support inside the sandbox.",
        "IMPORTANT: You must install Docker in your image first using `Image().with_docker()`.",
        'image = Image(python_version="python3.11").with_docker()',
        "sandbox = Sandbox(image=image, docker_enabled=True)",
        'instance.docker.run("hello-world")',
    ):
        assert line in doc


def test_the_reference_names_everything() -> None:
    text = (ROOT.parents[1] / "docs" / "reference" / "python.md").read_text()
    missing = [name for name in EXPORTED if name not in text]
    for cls in (
        innerdock.Client,
        innerdock.Image,
        innerdock.Sandbox,
        innerdock.SandboxInstance,
        innerdock.SandboxProcessManager,
        innerdock.SandboxProcess,
        innerdock.SandboxFileSystem,
    ):
        missing += [
            f"{cls.__name__}.{n}"
            for n, _ in inspect.getmembers(cls)
            if not n.startswith("_") and n not in text
        ]
    assert missing == []


def test_the_guide_names_every_docker_method() -> None:
    text = (ROOT.parents[1] / "docs" / "guide" / "docker-manager.md").read_text()
    known = {*dir(str), *dir(list), *dir(int)}
    methods = {
        name
        for cls in (
            innerdock.SandboxDockerManager,
            innerdock.DockerResult,
            innerdock.DockerText,
            innerdock.DockerList,
            innerdock.DockerDone,
            innerdock.DockerComposeStack,
        )
        for name in dir(cls)
        if not name.startswith("_") and name not in known
    }
    missing = [name for name in sorted(methods) if not re.search(rf"`[^`]*\b{name}\b", text)]
    assert missing == []


def test_the_guide_names_every_parameter_of_docker_methods() -> None:
    text = (ROOT.parents[1] / "docs" / "guide" / "docker-manager.md").read_text()
    missing = []
    for method, function in inspect.getmembers(innerdock.SandboxDockerManager, inspect.isfunction):
        if method.startswith("_"):
            continue
        for parameter in inspect.signature(function).parameters:
            if parameter != "self" and not re.search(rf"\b{parameter}\b", text):
                missing.append(f"{method}({parameter}=)")
    assert missing == []
