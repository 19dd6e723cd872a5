"""A study folder in a real S3 server, which two nodes and the driver share."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nodes import BIN, Cluster, Driver, children, running, wait_for
from recorded import STUDY, rows
from studies import write

from sweeps import api
from sweeps.folder import lease, objects
from sweeps.folder.conditional import conditional
from sweeps.folder.objects import ObjectPath
from sweeps.folder.places import place
from sweeps.mistakes import Refused
from sweeps.results import read_records
from sweeps.study import find_study

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("apart")]

BUCKET = "studies"
KEY, SECRET = "throw-away", secrets.token_hex(16)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a store with one bucket; its key is in the environment meanwhile."""
    weed = BIN / "weed"
    if not weed.exists():
        pytest.fail("needs an S3 server: .venv/bin/pip install -c constraints.txt '.[test-s3]'")
    folder = tmp_path_factory.mktemp("weed")
    mine = {"accessKey": KEY, "secretKey": SECRET}
    who = [{"name": "me", "credentials": [mine], "actions": ["Admin", "Read", "Write", "List"]}]
    guest = {"accessKey": "guest", "secretKey": SECRET}
    who += [{"name": "guest", "credentials": [guest], "actions": ["Read", "List"]}]
    (folder / "s3.json").write_text(json.dumps({"identities": who}))
    ports = dict(zip(("s3", "master", "volume", "filer"), free_pairs(4), strict=True))
    options = [f"-{name}.port={port}" for name, port in ports.items()]
    command = [weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-filer"]
    command += ["-s3", f"-s3.config={folder / 's3.json'}", "-master.volumeSizeLimitMB=64", *options]
    address = f"http://127.0.0.1:{ports['s3']}"
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("wb") as log:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_ENDPOINT_URL", address)
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            wait_for("a store that makes a bucket", made, seconds=120)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=60)
            shutil.rmtree(folder, ignore_errors=True)


def free_pairs(count: int) -> list[int]:
    """Return ports on which nothing listens, nor on those 10,000 above, which are for gRPC."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.randbelow(8000) + 11000
        with contextlib.suppress(OSError):
            for one in (port, port + 10000):
                socket.create_server(("127.0.0.1", one)).close()
            found.append(port)
    return found


def client() -> Any:
    import boto3  # noqa: PLC0415

    where = os.environ["AWS_ENDPOINT_URL"]
    return boto3.client("s3", endpoint_url=where, region_name=objects.REGION)


def made() -> bool:
    try:
        client().create_bucket(Bucket=BUCKET)
    except Exception:  # noqa: BLE001 - it is still starting
        return False
    return True


@pytest.fixture(scope="module")
def two(store: str) -> Iterator[Cluster]:
    """Return two nodes that know the store's key by their environment."""
    assert store
    with running() as cluster:
        cluster.join()
        yield cluster


@pytest.fixture
def folder(store: str, request: pytest.FixtureRequest) -> ObjectPath:
    assert store
    found = place(f"s3://{BUCKET}/{request.node.name}")
    assert isinstance(found, ObjectPath)
    return found


def story(top: Path) -> list[Any]:
    """Write, list and delete below a folder that is not there yet; return all that is seen."""
    one, other = top / "records" / "a.parquet", top / "records" / "b.json"
    said: list[Any] = [top.exists(), list(top.glob("*")) if top.exists() else []]
    for path in (one, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    said += [one.read_bytes(), other.read_text(), one.stat().st_size, one.is_file()]
    said += [one.is_dir(), top.is_dir(), one.name, one.stem, one.suffix]
    said += [path.relative_to(top).parts for path in sorted(top.glob("records/*.parquet"))]
    said += [path.name for path in sorted((top / "records").iterdir())]
    other.rename(top / "records" / "c.json")
    said += [other.exists(), (top / "records" / "c.json").read_text()]
    one.unlink()
    one.unlink(missing_ok=True)
    for wrong in (one.unlink, one.read_bytes, one.stat):
        with pytest.raises(FileNotFoundError):
            wrong()
    with (top / "records" / "c.json").open("rb") as file:
        said += [file.read(2), file.read()]
    with pytest.raises(OSError, match="not empty"):
        (top / "records").rmdir()
    (top / "records" / "c.json").unlink()
    if (top / "records").exists():  # Google's has no empty folders
        (top / "records").rmdir()
    return [*said, one.exists(), (top / "records").exists()]


def test_paths_are_those_of_a_disk(folder: ObjectPath, tmp_path: Path) -> None:
    """One story of writing, listing and deleting, in a store and on a disk."""
    assert story(folder) == story(tmp_path / "new")
    assert str(folder / "x") == f"s3://{BUCKET}/{folder.name}/x"
    with pytest.raises(TypeError, match="in object storage"):
        os.fspath(folder)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the example study's folder from this machine: on a disk, undisturbed, without Ray."""
    folder = tmp_path_factory.mktemp("quickstart")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        api.load("quickstart").run(launcher="inline", out=folder, progress=False)
    return folder


def test_two_nodes_a_killed_worker_and_a_resume(
    quickstart: Path,
    two: Cluster,
    drive: Callable[..., Driver],
    folder: ObjectPath,
    tmp_path: Path,
) -> None:
    """Must hold 3 and 4: the example study, equal in every deterministic column."""
    shutil.copy(find_study("quickstart"), tmp_path / "x.yaml")
    arguments = ["--launcher", two.address, "--out", str(folder), "--pack-width", "6"]
    driver = drive(two, *arguments)
    workers: set[int] = set()

    def training() -> bool:
        assert driver.process.poll() is None, driver.process.communicate()
        path = folder / "progress.json"
        packs = json.loads(path.read_bytes())["running"] if path.is_file() else []
        workers.update(one["pid"] for one in packs if one["pid"])
        return bool(workers) and any((folder / "checkpoints").iterdir())

    wait_for("a pack that was saved", training)
    mine = {pid for node in two.nodes for pid in children(node.raylet)}
    os.kill(min(workers & mine), signal.SIGKILL)
    wait_for("a finished pack", lambda: read_records(folder))
    os.kill(driver.process.pid, signal.SIGINT)
    code, _, err = driver.finish()
    assert code == 130, err
    assert "Traceback" not in err
    assert 0 < len(read_records(folder)) < 120
    code, out, err = drive(two, *arguments).finish()
    assert code == 0, err
    answer = json.loads(out)
    assert (answer["planned"], answer["out"]) == (120, str(folder))
    assert answer["trained"] < 120
    assert rows(folder) == rows(quickstart)
    assert not (folder / ".lock").exists()
    assert not (folder / "checkpoints").exists()
    assert (folder / "report.html").read_bytes().startswith(b"<!doctype html>")


def test_of_two_drivers_one_wins(
    two: Cluster, drive: Callable[..., Driver], folder: ObjectPath, tmp_path: Path
) -> None:
    write(tmp_path, {**STUDY, "seeds": 1})
    arguments = ["--launcher", "inline", "--out", str(folder)]
    drivers = [drive(two, *arguments) for _ in range(2)]
    ends = [driver.finish() for driver in drivers]
    assert sorted(code for code, _, _ in ends) == [0, 2]
    ((_, out, err),) = [end for end in ends if end[0] == 2]
    winner = next(driver for driver, end in zip(drivers, ends, strict=True) if end[0] == 0)
    assert out == ""
    start, _, rest = err.strip().splitlines()[-1].partition(" since ")
    who = f"'sweeps run cluster', process {winner.process.pid} on {socket.gethostname()}"
    assert start == f"{folder}: held by {who}"
    assert rest.endswith(
        " UTC; wait for it, or end it there; a holder that has died lets go after 60 s"
    )


def test_who_has_died_lets_go_and_who_has_lost_it_is_interrupted(
    folder: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases(folder, monkeypatch)


def leases(folder: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the lock from a holder that has gone, keep it, lose it to another."""
    store = conditional(folder / ".lock")
    dead = json.dumps({"host": "gone", "pid": 7, "since": "2026-01-01T00:00:00+00:00"}).encode()
    assert store.put(dead, None)
    assert store.put(dead, None) is None, "only where there is none"
    with pytest.raises(Refused, match="held by"), lease.lease(folder, "me"):
        pass
    monkeypatch.setattr(lease, "LAPSES", -1.0)
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.2)
    with lease.lease(folder, "me"):
        monkeypatch.setattr(lease, "LAPSES", 60.0)
        found = lease.lessee(folder)
        assert found is not None
        assert (found.command, found.pid) == ("me", os.getpid())
    assert lease.lessee(folder) is None
    an_answer_is_lost(folder)
    with pytest.raises(KeyboardInterrupt):
        robbed(folder, dead)
    assert (folder / ".lock").is_file(), "another's lease is left to it"


TESTBENCH = os.environ.get("STORAGE_EMULATOR_HOST")


@pytest.mark.skipif(
    not TESTBENCH,
    reason="needs Google's own testbench, which GitHub has and PyPI has not: "
    "start googleapis/storage-testbench, and set STORAGE_EMULATOR_HOST to its address",
)
@pytest.mark.filterwarnings("ignore:Please install grpcio-status:ImportWarning")
def test_googles_storage_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same paths and the same lock; a study from its beginning to its end."""
    from google.cloud import storage  # noqa: PLC0415

    name = f"studies-{secrets.token_hex(4)}"
    storage.Client(project="tests").create_bucket(name)
    folder = place(f"gs://{name}/one")
    assert isinstance(folder, ObjectPath)
    assert story(folder) == story(tmp_path / "new")
    leases(folder / "lease", monkeypatch)
    monkeypatch.chdir(tmp_path)
    for out in (folder / "smoke", tmp_path / "smoke"):
        api.load("smoke").run(launcher="inline", out=out, progress=False)
    assert rows(folder / "smoke") == rows(tmp_path / "smoke")
    with pytest.raises(Refused, match=rf"gs://nobody-s: no such bucket at {TESTBENCH}; make it"):
        place("gs://nobody-s/x")


def an_answer_is_lost(folder: ObjectPath) -> None:
    """Have the store take a renewal of which we never hear: it is ours all the same."""
    ours = lease._Lease(conditional(folder / ".lock"), "me")
    assert ours.take() is None
    known = ours._version
    assert ours.renew()
    ours._version = known
    assert ours.renew()
    assert lease._Lease(conditional(folder / ".lock"), "other").take() is not None
    ours.leave()


def robbed(folder: ObjectPath, other: bytes) -> None:
    """Hold the folder while another's lease is put in the place of ours."""
    with lease.lease(folder, "me"):
        (folder / ".lock").write_bytes(other)
        wait_for("an interrupt", lambda: False, seconds=30)


@pytest.mark.parametrize(
    ("changed", "where", "sentence"),
    [
        (
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            f"s3://{BUCKET}/x",
            "s3://studies: the store at {address} refuses these credentials; set AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY to a key that may use it",
        ),
        (
            {"AWS_ACCESS_KEY_ID": "guest"},
            f"s3://{BUCKET}/x",
            f"s3://{BUCKET}/x: the lock cannot be written: An error occurred (AccessDenied) when "
            "calling the PutObject operation: Access Denied.; give a key that may write there, or "
            "choose another --out",
        ),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            f"s3://{BUCKET}/x",
            "s3://studies: nothing answers at http://127.0.0.1:1; correct AWS_ENDPOINT_URL, or "
            "start the store",
        ),
        (
            {},
            "s3://no-such-bucket/x",
            "s3://no-such-bucket: no such bucket at {address}; make it first, or correct its name",
        ),
        (
            {},
            f"s3://{KEY}:{SECRET}@{BUCKET}/x",
            "s3://...: credentials have no place in it; expected s3://BUCKET/PATH",
        ),
        (
            {},
            "ftp://host/x",
            "ftp://host/x: unknown kind of storage 'ftp://'; known: a path, s3://, gs://",
        ),
    ],
    ids=[
        "a wrong key",
        "a key that may read",
        "no store",
        "no bucket",
        "a key in the address",
        "another scheme",
    ],
)
def test_a_store_that_cannot_be_used(
    changed: dict[str, str],
    where: str,
    sentence: str,
    two: Cluster,
    drive: Callable[..., Driver],
    store: str,
) -> None:
    code, out, err = drive(two, "--launcher", "inline", "--out", where, **changed).finish()
    assert (code, out) == (2, "")
    assert err == sentence.format(address=store) + "\n"
    assert SECRET not in err
