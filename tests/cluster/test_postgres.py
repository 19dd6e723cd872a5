"""MLflow as a group has it: a real server on a real PostgreSQL, that asks for a password."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from databases import Database, database
from mlflow import MlflowClient
from servers import Server
from studies import tiny, write
from tracked import known, level, numbers, shown

from sweeps import results
from sweeps.results import NUMBERS, correlations
from sweeps.tracking.view import quiet

pytestmark = pytest.mark.timeout(900)

COMMAND = Path(sys.executable).parent / "sweeps"
USERS = ("ada", "ben", "eve")
HOSTS = "127.0.0.1,127.0.0.1:*"


@dataclass
class Group:
    """A server with its database, and the passwords of those who use it."""

    server: Server
    database: Database
    folder: Path
    passwords: dict[str, str] = field(default_factory=dict)

    @property
    def secrets(self) -> list[str]:
        """Return every word that must never be seen."""
        return [*self.passwords.values(), self.database.password]

    def environment(self, user: str, password: str | None = None) -> dict[str, str]:
        """Return what a user's command runs under."""
        return {
            **os.environ,
            "MLFLOW_TRACKING_URI": self.server.address,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": password or self.passwords[user],
        }

    def ask(self, path: str, user: str | None, body: dict[str, str] | None = None) -> bytes:
        """Send a request of our own, not through MLflow's client."""
        address = f"{self.server.address}{path}"
        request = urllib.request.Request(address, json.dumps(body).encode() if body else None)  # noqa: S310 - loopback
        request.add_header("Content-Type", "application/json")
        if user:
            word = b64encode(f"{user}:{self.passwords[user]}".encode()).decode()
            request.add_header("Authorization", f"Basic {word}")
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            content: bytes = answer.read()
        return content


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """Start PostgreSQL and the server as docs/operations.md says; make three users."""
    folder = tmp_path_factory.mktemp("server")
    with database() as own:
        admin = secrets.token_hex(12)
        settings = folder / "auth.ini"
        settings.touch(0o600)
        settings.write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {own.make('mlflow_auth')}\n"
            "admin_username = admin\nauth_cache_ttl_seconds = 60\n"
        )
        server = Server(
            folder,
            ["--app-name", "basic-auth", "--allowed-hosts", HOSTS],
            {
                "MLFLOW_BACKEND_STORE_URI": own.make("mlflow"),
                "MLFLOW_AUTH_CONFIG_PATH": str(settings),
                "MLFLOW_AUTH_ADMIN_PASSWORD": admin,
                "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            },
        )
        group = Group(server, own, folder, {"admin": admin})
        try:
            server.start()
            for user in USERS:
                word = secrets.token_hex(12)
                body = {"username": user, "password": word}
                group.ask("/api/2.0/mlflow/users/create", "admin", body)
                group.passwords[user] = word
            yield group
        finally:
            server.end()


@contextlib.contextmanager
def watching(words: list[str]) -> Iterator[set[str]]:
    """Look at every command line of the machine, over and over; give those that hold a word."""
    found: set[str] = set()
    looks, over = 0, threading.Event()

    def look() -> None:
        nonlocal looks
        while not over.wait(0.02):
            looks += 1
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if any(word in line for word in words):
                        found.add(line)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
        assert looks > 50


def assert_in_no_file(folder: Path, words: list[str]) -> None:
    """Look into every byte that a command has left."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert not any(word.encode() in content for word in words), path


def study(folder: Path, name: str) -> Path:
    """Write a study that differs from the others'."""
    folder.mkdir()
    cells = [{"objective": "ae"}, {"objective": "wae", "prior": "bimodal"}]
    return write(folder, tiny(name=name, cells=cells, question=f"What does {name} ask?"))


def run(path: Path, environment: dict[str, str], *more: str) -> subprocess.Popen[str]:
    """Start a study in a process of its own."""
    return subprocess.Popen(
        [COMMAND, "run", path.name, "--launcher", "inline", "--json", *more],
        cwd=path.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_whole(group: Group, user: str, name: str, folder: Path) -> None:
    """Compare MLflow with the study's tables: each run once, FINISHED, every number, the files."""
    uri, tables = group.server.address, results.read(folder)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in group.environment(user).items():
            patch.setenv(key, value)
        runs = shown(uri, name)
        seeds, cells, top = (level(runs, one) for one in ("seed", "cell", "study"))
        rows = {row["run_id"]: row for row in tables.runs.to_pylist()}
        assert len(rows) == 6
        assert seeds.keys() == rows.keys()
        assert cells.keys() == {row["cell_id"] for row in tables.summary.to_pylist()}
        assert len(runs) == 6 + 2 + 1
        assert {run.info.status for run in runs} == {"FINISHED"}
        columns = [*NUMBERS, *correlations(tables), "seconds"]
        for run_id, row in rows.items():
            assert numbers(seeds[run_id]) == known(row, columns)
        (one,) = top.values()
        assert one.info.artifact_uri.startswith("mlflow-artifacts:/"), "through the server"
        with quiet():
            client = MlflowClient(uri)
            files = {item.path for item in client.list_artifacts(one.info.run_id)}
            assert {"report.html", "results.parquet", "summary.parquet"} <= files
            for file in ("report.html", "results.parquet"):
                got = Path(client.download_artifacts(one.info.run_id, file))
                assert got.read_bytes() == (folder / file).read_bytes()
    run_id = one.info.run_id
    for path in (
        f"/api/2.0/mlflow/runs/get?run_id={run_id}",
        f"/get-artifact?path=report.html&run_uuid={run_id}",
        f"/api/2.0/mlflow-artifacts/artifacts/{one.info.experiment_id}/{run_id}/artifacts/report.html",
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            group.ask(path, None)
        assert refused.value.code == 401, path
        refused.value.close()


def test_three_studies_side_by_side(group: Group, tmp_path: Path) -> None:
    """Must hold 1c. The third has its password in the address, as people do."""
    names = {user: f"study-of-{user}" for user in USERS}
    paths = {user: study(tmp_path / user, names[user]) for user in USERS}
    environments = {user: group.environment(user) for user in USERS}
    last = environments["eve"]
    word, user = last.pop("MLFLOW_TRACKING_PASSWORD"), last.pop("MLFLOW_TRACKING_USERNAME")
    last["MLFLOW_TRACKING_URI"] = group.server.address.replace("//", f"//{user}:{word}@")
    with watching(group.secrets) as seen:
        calls = {user: run(paths[user], environments[user]) for user in USERS}
        said = {user: call.communicate(timeout=600) for user, call in calls.items()}
    assert seen == set()
    for user, (out, err) in said.items():
        assert calls[user].returncode == 0, err
        answer = json.loads(out)
        assert answer["planned"] == answer["trained"] == 6
        assert (answer["tracking"], answer["tracking_uri"]) == ("written", group.server.address)
        assert not any(word in out + err for word in group.secrets)
    for user in USERS:
        assert_whole(group, user, names[user], tmp_path / user / "runs" / names[user])
    assert_in_no_file(tmp_path, group.secrets)
    assert_in_no_file(group.folder / "artifacts", group.secrets)
    for word in group.secrets:
        assert group.database.holds("mlflow", word) == []
        assert group.database.holds("mlflow_auth", word) == [], "only their digests"
    assert group.database.holds("mlflow", names["ada"]) != [], "what is there is found"


def test_a_wrong_password(group: Group, tmp_path: Path) -> None:
    """One clear message, and training goes on; later the right one makes it whole."""
    path, wrong = study(tmp_path / "late", "late"), secrets.token_hex(12)
    folder = path.parent / "runs" / "late"
    words = [wrong, *group.secrets]
    with watching(words) as seen:
        call = run(path, group.environment("ada", wrong))
        out, err = call.communicate(timeout=600)
    answer = json.loads(out)
    assert (call.returncode, answer["trained"], answer["tracking"]) == (0, 6, "pending")
    said = [line for line in err.splitlines() if "MLflow" in line]
    assert said == [
        f"MLflow: MLflow at {group.server.address} refused the user name or password: correct "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; then: sweeps track runs/late"
    ]
    assert "Traceback" not in err
    assert seen == set()
    assert not any(word in out + err for word in words)
    again = subprocess.run(
        [COMMAND, "track", "runs/late", "--json"],
        cwd=path.parent,
        env=group.environment("ada"),
        capture_output=True,
        text=True,
        check=True,
    )
    content: dict[str, Any] = json.loads(again.stdout)
    assert content["tracking"] == "written"
    assert_whole(group, "ada", "late", folder)
    assert_in_no_file(tmp_path, words)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_PASSWORD": ""},
            "wants a user name and a password: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD",
        ),
        (
            {"MLFLOW_TRACKING_USERNAME": "ben"},
            "lets ben read this study and not write it: ask its administrator for the permission "
            "EDIT, or give the study another name",
        ),
    ],
)
def test_who_may_not_write(
    group: Group, tmp_path: Path, variables: dict[str, str], sentence: str
) -> None:
    """Nobody, and somebody else than the one whose study it is."""
    path = study(tmp_path / "mine", "mine")
    first, _ = run(path, group.environment("ada")).communicate(timeout=600)
    assert json.loads(first)["tracking"] == "written"
    environment = group.environment("ada")
    if variables["MLFLOW_TRACKING_USERNAME"]:
        environment = group.environment(variables["MLFLOW_TRACKING_USERNAME"])
    more = run(path, {**environment, **variables}, "--seeds", "4")
    out, err = more.communicate(timeout=600)
    answer = json.loads(out)
    assert (more.returncode, answer["trained"], answer["tracking"]) == (0, 2, "pending")
    said = f"MLflow: MLflow at {group.server.address} {sentence}; then: sweeps track runs/mine"
    assert [line for line in err.splitlines() if "MLflow" in line] == [said]


def test_another_host_name_is_refused(group: Group) -> None:
    """What a page in somebody's browser could have its own name resolved to."""
    request = urllib.request.Request(f"{group.server.address}/", headers={"Host": "evil.example"})  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)  # noqa: S310 - loopback
    assert refused.value.code == 403
    assert refused.value.read() == b"Invalid Host header - possible DNS rebinding attack detected"
