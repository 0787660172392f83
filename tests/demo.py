"""`make demo`: the main job, shown. With an image's name it pulls that; without one it needs no internet.

Makes a multi-layer image, serves it from docker-registry on loopback where that is installed (else from a small
read-only registry), starts a daemon, and tells the story of two namespaces that share one download.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.layout_registry import LayoutRegistry
from tests.support.registries import DockerRegistry, make_layout, push_layout

BIN = Path(sys.executable).parent


def main() -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orlop-demo-")))
        if wanted:
            name, flags = wanted, []
        else:
            name, flags = stack.enter_context(local_image(folder)), ["--plain-http"]
        address = stack.enter_context(daemon(folder / "store"))
        demo = Demo(address)
        demo.say("A namespace with a label, and a list of all")
        demo.run("namespaces", "create", "foo", "mylabel=bar")
        demo.run("namespaces", "ls")
        demo.say("Pull an image into the namespace `default`")
        demo.run("pull", *flags, name)
        demo.run("images", "ls")
        demo.say("Its layers stand ready to be mounted")
        demo.run("snapshots", "tree")
        demo.say("The namespace `foo` sees none of it; its own pull downloads and unpacks nothing again")
        demo.run("images", "ls", namespace="foo")
        demo.run("pull", *flags, name, namespace="foo")
        demo.say("Removing it there collects what only foo held; in `default` it is untouched")
        demo.run("images", "rm", name, namespace="foo")
        demo.run("images", "ls")
        demo.run("namespaces", "rm", "foo")
        demo.say("A namespace that is not empty stays")
        demo.run("namespaces", "rm", "default", expect=1)
        print("\ndemo: everything as it should be")


class Demo:
    def __init__(self, address: str) -> None:
        self._address = address

    def say(self, text: str) -> None:
        print(f"\n\033[1m# {text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)

    def run(self, *command: str, namespace: str = "", expect: int = 0) -> None:
        prefix = f"ORLOP_NAMESPACE={namespace} " if namespace else ""
        print(f"$ {prefix}orlop {shlex.join(command)}", flush=True)
        environment = dict(os.environ, ORLOP_ADDRESS=self._address)
        environment.pop("ORLOP_NAMESPACE", None)
        if namespace:
            environment["ORLOP_NAMESPACE"] = namespace
        done = subprocess.run([BIN / "orlop", *command], env=environment, check=False)
        if done.returncode != expect:
            sys.exit(f"demo: orlop ended with {done.returncode} instead of {expect}")


@contextmanager
def local_image(folder: Path) -> Iterator[str]:
    """The name of an image of several layers, served on loopback."""
    made = make_layout(folder / "image", "--preset", "redis", "--size", "24M", "--files", "600", "--tag", "latest")
    print(f"# made an image of {len(made['layers'])} layers")
    if DockerRegistry.available():
        with DockerRegistry(folder / "registry") as registry:
            push_layout(folder / "image", registry.address, "library/redis")
            print(f"# docker-registry serves it on {registry.address}")
            yield f"{registry.address}/library/redis:latest"
    else:
        with LayoutRegistry({"library/redis": folder / "image"}) as small:
            print(f"# docker-registry is not installed; a small read-only registry serves it on {small.address}")
            yield f"{small.address}/library/redis:latest"


@contextmanager
def daemon(root: Path) -> Iterator[str]:
    command = [str(BIN / "orlopd"), "--root", str(root), "--listen", f"unix:{root}/orlop.sock", "--log-level", "error"]
    print(f"# {shlex.join(['orlopd', *command[1:]])}", flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("ready:"):
                sys.exit("demo: the daemon did not start")
            yield f"unix:{root}/orlop.sock"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


if __name__ == "__main__":
    main()
