"""Five things to do with Docker in a sandbox.

    python docker_sandbox_example.py            # all of them
    python docker_sandbox_example.py compose    # one, by its name …
    python docker_sandbox_example.py 3          # … or its number

Every example has its own sandbox, which ends with it. They need a server
(`innerdock server`, or `make up` in a checkout) and nothing else: hello-world,
nginx:latest and busybox:latest come from the server's registry cache.
"""

from __future__ import annotations

import sys
import time

from innerdock import Image, Sandbox, SandboxInstance


def new_sandbox() -> Sandbox:
    """Returns what all examples run in."""
    # Install Docker in the image
    image = Image(python_version="python3.11").with_docker()

    return Sandbox(
        image=image,
        docker_enabled=True,
        cpu=2.0,
        memory="4Gi",
    )


def hello_world() -> None:
    """1. Run a container and read what it printed."""
    with new_sandbox().create() as instance:
        result = instance.docker.run("hello-world")
        result.wait()
        print(result.stdout.read())


def custom_image() -> None:
    """2. Build an image from files in the sandbox, and run it."""
    with new_sandbox().create() as instance:
        instance.fs.write_text("greet.sh", 'echo "Hello, $1, from an image of my own"\n')
        instance.fs.write_text(
            "Dockerfile",
            'FROM busybox:latest\nCOPY greet.sh /greet.sh\nENTRYPOINT ["sh", "/greet.sh"]\n',
        )
        build = instance.docker.build("greeter:v1", context=".")
        for line in build.logs():
            print("  build:", line, end="")
        build.check()

        print(instance.docker.run("greeter:v1", "world", remove=True).check())


def compose() -> None:
    """3. Start two services with Compose; one reaches the other by its name."""
    with new_sandbox().create() as instance:
        instance.fs.write_text(
            "docker-compose.yml",
            "services:\n"
            "  web:\n"
            "    image: nginx:latest\n"
            "  visitor:\n"
            "    image: busybox:latest\n"
            "    command: sleep 600\n"
            "    depends_on: [web]\n",
        )
        instance.docker.compose_up().check()
        print(instance.docker.compose_ps())

        page = until_ok(
            instance,
            "docker compose exec -T visitor wget -q -O - http://web/",
        )
        print("the visitor got:", title(page))
        print(instance.docker.compose_logs(tail=3))
        instance.docker.compose_down(volumes=True).check()


def published_port() -> None:
    """4. Start a service in the background and reach it through a published port."""
    with new_sandbox().create() as instance:
        instance.docker.run("nginx:latest", name="web", detach=True, ports={8080: 80}).check()
        print(instance.docker.ps())

        page = until_ok(
            instance,
            "python3 -c 'import urllib.request as u; "
            'print(u.urlopen("http://127.0.0.1:8080/", timeout=5).read().decode())\'',
        )
        print("port 8080 of the sandbox says:", title(page))
        instance.docker.stop("web", timeout=1).check()
        instance.docker.rm("web").check()


def volumes_and_environment() -> None:
    """5. Give containers environment variables, a directory and a volume."""
    with new_sandbox().create() as instance:
        instance.fs.write_text("input/name.txt", "volumes")
        instance.docker.volume_create("results").check()

        instance.docker.run(
            "busybox:latest",
            ["sh", "-c", 'echo "$GREETING, $(cat /input/name.txt)!" > /results/out.txt'],
            remove=True,
            env={"GREETING": "Hello"},
            volumes={"/workspace/input": "/input:ro", "results": "/results"},
        ).check()

        result = instance.docker.run(
            "busybox:latest",
            "cat /results/out.txt",
            remove=True,
            volumes={"results": "/results"},
        )
        print("the volume holds:", result.check())
        print(instance.docker.volume_ls())


def until_ok(instance: SandboxInstance, command: str, seconds: float = 30) -> str:
    """Repeats a shell command until it succeeds, and returns what it printed."""
    end = time.monotonic() + seconds
    while True:
        process = instance.process.exec("sh", "-c", command)
        if process.wait() == 0:
            return process.stdout.read()
        if time.monotonic() > end:
            raise SystemExit(f"{command!r} kept failing: {process.stderr.read()}")
        time.sleep(0.3)


def title(page: str) -> str:
    """Returns the title of an HTML page."""
    return page.partition("<title>")[2].partition("</title>")[0] or page[:80]


EXAMPLES = [hello_world, custom_image, compose, published_port, volumes_and_environment]


def main(wanted: list[str]) -> None:
    """Runs the examples that are wanted, by number or name; all without any."""
    by_name = {example.__name__: example for example in EXAMPLES}
    by_name.update({str(number): example for number, example in enumerate(EXAMPLES, 1)})
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        names = ", ".join(example.__name__ for example in EXAMPLES)
        raise SystemExit(f"no example {unknown[0]!r}; there are 1 to {len(EXAMPLES)}: {names}")
    for example in [by_name[name] for name in wanted] or EXAMPLES:
        print(f"== {example.__doc__}", flush=True)
        example()


if __name__ == "__main__":
    main(sys.argv[1:])
