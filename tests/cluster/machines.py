"""Machines with sshd, as a lab has them: names, homes, /tmp and processes of their own.

They share a network that consists of loopback alone, so port 22 is theirs and nothing leaves it.
When the process that holds the network ends, the kernel ends everything in it.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodes import wait_for

ROOT = Path(__file__).parents[2]
USER = "lab"
SSHD = "/usr/sbin/sshd"
LAPTOP, HEAD, WORKER = "10.77.0.1", "10.77.0.2", "10.77.0.3"
# It ends with the tests also where they are killed.
NETWORK = [
    "setpriv",
    "--pdeathsig=KILL",
    "unshare",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
]
# /tmp becomes a folder of the machine's own, in which what the tests use lies where it always does.
APART = """
set -e
mount --make-rprivate /
hostname "$1"
for path in $KEPT; do
  case $path in /tmp/*)
    mkdir -p "$2/tmp/${path#/tmp/}"
    mount --rbind "$path" "$2/tmp/${path#/tmp/}"
  esac
done
mount --bind "$2/passwd" /etc/passwd
mount --bind "$2/hosts" /etc/hosts
mount -t tmpfs none /run
mkdir /run/sshd
mount --rbind "$2/tmp" /tmp
cd "$3"
shift 3
exec "$@"
"""


@dataclass
class Machine:
    """A machine: its address, and the folder that holds its home and /tmp."""

    name: str
    address: str
    folder: Path
    network: int
    server: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        """Return its user's home."""
        return self.folder / "home"

    def command(self, words: Sequence[str], cwd: Path = ROOT) -> list[str]:
        """Return what runs a command there, in processes of its own."""
        inside = ["nsenter", f"--target={self.network}", "--net", "--mount", "--pid"]
        apart = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        shell = ["sh", "-c", APART, "sh", self.name, str(self.folder), str(cwd)]
        return [*inside, *apart, *shell, *words]

    @property
    def environment(self) -> dict[str, str]:
        """Return what a command there finds: nothing of ours."""
        return {
            "HOME": str(self.home),
            "USER": USER,
            "LANG": "C.UTF-8",
            "PATH": f"{self.home}/seedsweep/.venv/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "KEPT": " ".join({str(ROOT), sys.prefix, sys.base_prefix, str(self.folder.parent)}),
        }

    def run(self, *words: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end."""
        return subprocess.run(
            self.command(words, cwd),
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )

    def processes(self) -> dict[int, str]:
        """Return what runs in what sshd has started, and sshd itself, with command lines."""
        assert self.server is not None
        top = Path(f"/proc/{_child(_child(self.server.pid))}/ns/pid").readlink()
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "ns" / "pid").readlink() == top:
                    line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    if line:
                        found[int(path.name)] = line
        return found


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@dataclass
class Laboratory:
    """A laptop, a head and a worker, and a folder that all share."""

    folder: Path
    laptop: Machine
    head: Machine
    worker: Machine
    key: Path

    @property
    def shared(self) -> Path:
        """Return what would be an NFS mount."""
        return self.folder / "shared"


@contextlib.contextmanager
def laboratory() -> Iterator[Laboratory]:
    """Set the machines up; end all that runs there after."""
    folder = Path(tempfile.mkdtemp(prefix="lab", dir="/tmp"))
    network = subprocess.Popen(
        [*NETWORK, "sh", "-c", _addresses() + "echo up; exec sleep infinity"],
        stdout=subprocess.PIPE,
    )
    found: list[Machine] = []
    try:
        assert network.stdout is not None
        assert network.stdout.readline() == b"up\n"
        inside = _child(network.pid)
        key = _keys(folder)
        for name, address in (("laptop", LAPTOP), ("head", HEAD), ("worker", WORKER)):
            found.append(_machine(folder, name, address, inside))
        (folder / "shared").mkdir()
        for machine in found[1:]:
            _serve(machine)
        yield Laboratory(folder, *found, key)
    finally:
        network.kill()
        network.communicate()
        for machine in found:
            if machine.server is not None:
                machine.server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _addresses() -> str:
    added = [f"ip address add {address}/32 dev lo; " for address in (LAPTOP, HEAD, WORKER)]
    return "set -e; ip link set lo up; " + "".join(added)


def _keys(folder: Path) -> Path:
    for name in ("user", "host"):
        call = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(call, check=True)
    return folder / "user"


def _machine(folder: Path, name: str, address: str, network: int) -> Machine:
    machine = Machine(name, address, folder / name, network)
    (machine.folder / "tmp").mkdir(parents=True)
    (machine.folder / "tmp").chmod(0o1777)
    machine.home.mkdir()
    (machine.folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n")
    user = f"{USER}:*:0:0::{machine.home}:/bin/bash\n"
    (machine.folder / "passwd").write_text(user + Path("/etc/passwd").read_text())
    (machine.home / ".bashrc").write_text(f"export NODE_IP={address}\n")
    _environment(machine.home / "seedsweep" / ".venv")
    pip = machine.home / ".config" / "pip" / "pip.conf"
    pip.parent.mkdir(parents=True)
    pip.write_text("[global]\nno-index = true\nno-build-isolation = false\n")
    return machine


def _environment(place: Path) -> None:
    """Make what `setup_commands` would make, with all but seedsweep in it: it is not downloaded."""
    venv.create(place, with_pip=True)
    # Older Pythons bring an older setuptools, which would stand before the one that builds ours.
    subprocess.run(
        [place / "bin" / "python", "-m", "pip", "uninstall", "-qq", "--yes", "setuptools"],
        check=True,
    )
    site = sysconfig.get_path("purelib", vars={"base": str(place)})
    Path(site, "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    ray = place / "bin" / "ray"
    code = "import sys\nfrom ray.scripts.scripts import main\nsys.exit(main())\n"
    ray.write_text(f"#!{place}/bin/python\n{code}")
    ray.chmod(0o755)


def _serve(machine: Machine) -> None:
    options = {
        "ListenAddress": f"{machine.address}:22",
        "HostKey": machine.folder.parent / "host",
        "AuthorizedKeysFile": machine.folder.parent / "user.pub",
        "PermitRootLogin": "prohibit-password",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        "StrictModes": "no",
        "PidFile": "none",
    }
    config = machine.folder / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    log = machine.folder / "sshd.log"
    machine.server = subprocess.Popen(
        machine.command([SSHD, "-D", "-E", str(log), "-f", str(config)]),
        env=machine.environment,
        stdin=subprocess.DEVNULL,
    )
    wait_for("sshd", lambda: log.exists() and "listening" in log.read_text(), 20)
