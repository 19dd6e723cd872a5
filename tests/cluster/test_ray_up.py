"""`ray up`, `ray submit`, `ray down` with the cluster.yaml that is shipped, over real sshds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from machines import HEAD, ROOT, USER, WORKER, Laboratory, laboratory
from nodes import wait_for
from recorded import PACKS, STUDY, Reference, records
from studies import write

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("apart")]

SCRIPT = "cluster/run_study.py"


def edited(laboratory: Laboratory) -> str:
    """Return the shipped file with what a group fills in: the lines marked EDIT, and no other."""
    filled = {
        "head_ip: 192.0.2.10": f"head_ip: {HEAD}",
        "worker_ips: [192.0.2.11, 192.0.2.12]": f"worker_ips: [{WORKER}]",
        "ssh_user: me": f"ssh_user: {USER}",
        "ssh_private_key: ~/.ssh/id_ed25519": f"ssh_private_key: {laboratory.key}",
        "SEEDSWEEP_SHARED=/mnt/shared/seedsweep": f"SEEDSWEEP_SHARED={laboratory.shared}",
    }
    lines = (ROOT / "cluster.yaml").read_text().splitlines()
    to_fill = {i for i, line in enumerate(lines) if line[0:1] not in ("#", "") and "# EDIT" in line}
    for before, after in filled.items():
        (place,) = (i for i in to_fill if before in lines[i])
        lines[place] = lines[place].replace(before, after)
        to_fill.remove(place)
    assert not to_fill
    return "\n".join(lines) + "\n"


def encoded(*words: str) -> str:
    """Return what the script makes of words on a laptop."""
    call = [sys.executable, ROOT / SCRIPT, "--encode", *words]
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def lab() -> Iterator[Laboratory]:
    for name in ("sshd", "rsync", "ssh-keygen", "nsenter", "ip"):
        if not shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin"):
            pytest.skip(f"needs {name}: apt-get install openssh-server rsync iproute2")
    call = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    if call.returncode:
        pytest.skip(f"needs root, for a network of its own: {call.stderr.strip()}")
    with laboratory() as found:
        (found.folder / "cluster.yaml").write_text(edited(found))
        yield found


def test_from_a_laptop_to_a_cluster_and_back(lab: Laboratory, reference: Reference) -> None:
    """Must hold 1 (a)."""
    config = str(lab.folder / "cluster.yaml")
    started = [machine.processes() for machine in (lab.head, lab.worker)]
    generate = "umask 077; ray get-auth-token --generate > /dev/null"
    assert lab.laptop.run("sh", "-c", generate).returncode == 0
    up = lab.laptop.run("ray", "up", "-y", config)
    assert up.returncode == 0, up.stdout
    token = (lab.laptop.home / ".ray" / "auth_token").read_text()
    assert token not in up.stdout

    def joined() -> bool:
        call = lab.laptop.run("ray", "exec", config, "ray status")
        return "2 local.cluster.node" in call.stdout

    wait_for("the worker", joined)
    for machine in (lab.head, lab.worker):
        path = machine.home / ".ray" / "auth_token"
        assert path.read_text() == token
        assert path.stat().st_mode & 0o777 == 0o600
        assert not any(token in line for line in machine.processes().values())
    write(lab.head.home, STUDY)
    submit = lab.laptop.run(
        "ray", "submit", config, SCRIPT, "--", "x.yaml", "--json", "--pack-width", "2"
    )
    assert submit.returncode == 0, submit.stdout
    folder = lab.shared / "runs" / "cluster"
    reference.assert_equal(folder)
    assert (folder / "report.html").is_file()
    assert len({row["pack"] for row in records(folder)}) == PACKS
    assert {row["host"] for row in records(folder)} == {"head", "worker"}

    missing = encoded("~/it's missing; $(touch gone).yaml", "--json")
    refused = lab.laptop.run("ray", "submit", config, SCRIPT, "--", missing)
    assert refused.returncode == 1, "Ray's own, for every exit code but 0"
    assert "it's missing; $(touch gone).yaml: no such file" in refused.stdout
    assert not any(lab.folder.glob("*/home/gone"))
    down = lab.laptop.run("ray", "down", "-y", config)
    assert down.returncode == 0, down.stdout
    for machine, before in zip((lab.head, lab.worker), started, strict=True):
        wait_for(
            f"the end of all that was started on {machine.name}",
            lambda m=machine, b=before: m.processes().keys() == b.keys(),
            seconds=180,
        )
