"""podman where no registry is reachable: a base image of debootstrap's, and docker/compose.yaml.

Everything carries a project name of its own, and nothing else on the machine is touched. Images
stay, for the next time.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "localhost/seedsweep-base:bookworm", "localhost/seedsweep:latest"
POSTGRES = "localhost/seedsweep-postgres:latest"
TOOLS = ("podman", "runc", "debootstrap")
PACKAGES = "podman runc debootstrap netavark aardvark-dns catatonit iptables"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
SECRETS = ("ray_token", "mlflow_password", "mlflow_key", "postgres_password")
# As root without systemd's limits podman asks for more than the kernel grants, and Debian's crun
# wants a cgroup that is not there.
CONF = """[containers]
default_ulimits = ["nofile=20000:20000", "nproc=10000:10000"]
[engine]
runtime = "runc"
"""
LABEL = "io.podman.compose.project"
ISOLATION = "--isolation=chroot"  # builds need no namespaces of their own


class Trouble(Exception):  # noqa: N818 - the harness says it, and ends
    """What went wrong, in a sentence."""


def free_port() -> int:
    """Return a port of loopback on which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def descendants(parent: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return [*found, *(pid for child in found for pid in descendants(child))]


@dataclass
class Engine:
    """podman, with a folder of settings and secrets, for one project."""

    folder: Path
    project: str = field(default_factory=lambda: f"seedsweep{secrets.token_hex(3)}")
    dashboard: int = field(default_factory=free_port)
    mlflow: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        """Write the settings and the secrets."""
        (self.folder / "containers.conf").write_text(CONF)
        (self.folder / "secrets").mkdir(mode=0o700)
        for name in SECRETS:
            (self.folder / "secrets" / name).write_text(secrets.token_hex(32) + "\n")

    @property
    def environment(self) -> dict[str, str]:
        """Return what podman and podman-compose run under."""
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "DASHBOARD_PORT": str(self.dashboard),
            "MLFLOW_PORT": str(self.mlflow),
            "POSTGRES_IMAGE": POSTGRES,
            "SECRETS": str(self.folder / "secrets"),
            "SEEDSWEEP_IMAGE": IMAGE,
            "SHARED_MEMORY": "512m",
            "WORKER_CPUS": "1",
        }

    def secret(self, name: str) -> str:
        """Return a secret."""
        return (self.folder / "secrets" / name).read_text().strip()

    def run(self, *words: str | Path, seconds: float = 120, fine: Container[int] = (0,)) -> str:
        """Run a command; return what it says on stdout. Raises Trouble with what it said."""
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException as failure:  # a build's step outlives podman
            for pid in [*descendants(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.communicate()
            if isinstance(failure, subprocess.TimeoutExpired):
                msg = f"{' '.join(map(str, words))}: took more than {seconds:g} s"
                raise Trouble(msg) from None
            raise
        if process.returncode not in fine:
            said = "\n".join((out + err).strip().splitlines()[-30:])
            msg = f"{' '.join(map(str, words))}: ended with {process.returncode}\n{said}"
            raise Trouble(msg)
        return out

    def podman(self, *words: str | Path, seconds: float = 120) -> str:
        """Run podman."""
        return self.run("podman", *words, seconds=seconds)

    def compose(self, *words: str, seconds: float = 300) -> str:
        """Run podman-compose on docker/compose.yaml."""
        file = ROOT / "docker" / "compose.yaml"
        return self.run("podman-compose", "-p", self.project, "-f", file, *words, seconds=seconds)

    def has(self, image: str) -> bool:
        """Tell whether an image is there."""
        with contextlib.suppress(Trouble):
            self.podman("image", "exists", image)
            return True
        return False

    def containers(self, service: str) -> list[str]:
        """Return the names of a service's containers, those that have ended too."""
        wanted = [f"{LABEL}={self.project}", f"com.docker.compose.service={service}"]
        filters = [word for one in wanted for word in ("--filter", f"label={one}")]
        return self.podman("ps", "--all", *filters, "--format", "{{.Names}}").split()

    def inspect(self, container: str) -> dict[str, object]:
        """Return the state of a container."""
        (found,) = json.loads(self.podman("inspect", container))
        state: dict[str, object] = found["State"]
        return state | {"restarts": found["RestartCount"]}

    def down(self) -> None:
        """Take everything down that carries the project's name."""
        with contextlib.suppress(Trouble):
            self.compose("down", "--volumes", "--timeout", "5")
        # Scaled containers, and what they hold, may be left behind; of those that depend on one
        # another podman removes some at a time.
        mine = ("--filter", f"label={LABEL}={self.project}", "--quiet")
        for _ in range(5):
            if left := self.podman("ps", "--all", *mine).split():
                with contextlib.suppress(Trouble):
                    self.podman("rm", "--force", "--time", "5", *left)
        for kind in ("volume", "network"):
            if left := self.left(kind):
                self.podman(kind, "rm", "--force", *left)

    def left(self, kind: str) -> list[str]:
        """Return the project's volumes or networks that are there."""
        named = self.podman(kind, "ls", "--format", "{{.Name}}").split()
        return [name for name in named if name.startswith(f"{self.project}_")]


def base(engine: Engine) -> str:
    """Return the base image: the one that BASE names, the one of last time, or a new one."""
    if "BASE" in os.environ:
        return os.environ["BASE"]
    if not engine.has(BASE):
        tree, packed = engine.folder / "tree", engine.folder / "tree.tar"
        more = "--include=ca-certificates,python3,python3-venv"
        line = ("debootstrap", "--variant=minbase", more, "bookworm", str(tree), MIRROR)
        engine.run(*line, seconds=900)
        engine.run("tar", "--create", "--directory", tree, "--file", packed, ".")
        engine.podman("import", packed, BASE, seconds=300)
        shutil.rmtree(tree)
        packed.unlink()
    return BASE


def build(engine: Engine, on: str) -> None:
    """Build our image, with this machine's pip configuration as secrets, and PostgreSQL's."""
    settings, mounts = pip_settings(os.environ, engine)
    (engine.folder / "pip.conf").write_text(settings)
    words: list[str | Path] = ["build", ISOLATION, f"--build-arg=BASE={on}", f"--tag={IMAGE}"]
    words += [f"--secret=id=pip,src={engine.folder / 'pip.conf'}"]
    if authority := os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE"):
        words += [f"--secret=id=ca,src={authority}"]
    if mounts or "TORCH_INDEX" in os.environ:  # wheels that lie here may have torch among them
        words.append(f"--build-arg=TORCH_INDEX={os.environ.get('TORCH_INDEX', '')}")
    words += [f"--volume={folder}:{folder}:ro" for folder in mounts]
    engine.podman(*words, "--file=docker/Dockerfile", ".", seconds=1800)
    if "POSTGRES_IMAGE" not in os.environ:
        file = "--file=tests/containers/postgres.Dockerfile"
        where = ROOT / "tests" / "containers"
        tag = (ISOLATION, f"--build-arg=BASE={on}", f"--tag={POSTGRES}")
        engine.podman("build", *tag, file, where, seconds=900)


def pip_settings(environment: Mapping[str, str], engine: Engine) -> tuple[str, list[Path]]:
    """Return pip's settings on this machine as a file, and the folders that they name."""
    listed = engine.run(sys.executable, "-m", "pip", "config", "list")
    found = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        found[key.rpartition(".")[2]] = value.strip("'\"").replace("\\n", " ")
    for key in ("find-links", "index-url", "extra-index-url"):
        if given := environment.get(f"PIP_{key.upper().replace('-', '_')}"):
            found[key] = given
    kept = {
        key: found[key] for key in ("index-url", "extra-index-url", "find-links") if key in found
    }
    lines = ["[global]", *(f"{key} = {value}" for key, value in kept.items())]
    if environment.get("PIP_CERT") or environment.get("SSL_CERT_FILE"):
        lines.append("cert = /run/secrets/ca")
    places = " ".join(kept.values()).split()
    folders = {Path(one) for one in places if one.startswith("/")}
    folders |= {Path(one.removeprefix("file://")).parent for one in places if "file://" in one}
    return "\n".join([*lines, ""]), sorted(one for one in folders if one.is_dir())


@contextlib.contextmanager
def opened() -> Iterator[Engine]:
    """Make an engine; take down what it has brought up, whatever happens."""
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        msg = f"no {' or '.join(missing)} here; on Debian, as root: apt-get install {PACKAGES}"
        raise Trouble(msg)
    folder = Path(tempfile.mkdtemp(prefix="seedsweep-containers-"))
    engine = Engine(folder)
    try:
        yield engine
    finally:
        try:
            engine.down()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
