"""A throw-away PostgreSQL on loopback, as its own user: never the machine's service."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from nodes import free_port

HOST, USER = "127.0.0.1", "mlflow"
DEBIAN = "/usr/lib/postgresql/*/bin/initdb"
OPTIONS = "-c listen_addresses={} -c port={} -c unix_socket_directories= -c fsync=off"


@dataclass(frozen=True)
class Database:
    """A PostgreSQL that runs, and the password of its only user."""

    port: int
    password: str

    def uri(self, name: str) -> str:
        """Return the address of a database, with its password and the driver that we have.

        SQLAlchemy 2.1 takes another one where none is named.
        """
        return f"postgresql+psycopg2://{USER}:{self.password}@{HOST}:{self.port}/{name}"

    def make(self, name: str) -> str:
        """Make a database, and return its address."""
        with contextlib.closing(self._connection("postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"create database {name}")
        return self.uri(name)

    def _connection(self, name: str) -> Any:
        return psycopg2.connect(self.uri(name).replace("+psycopg2", ""))

    def holds(self, name: str, words: str) -> list[str]:
        """Return the columns of a database in which words stand."""
        found = []
        with contextlib.closing(self._connection(name)) as connection:
            cursor = connection.cursor()
            cursor.execute(
                "select table_name, column_name from information_schema.columns"
                " where table_schema = 'public'"
            )
            columns = cursor.fetchall()
            assert len(columns) > 20, "the tables are there"
            for table, column in columns:
                cursor.execute(
                    f'select count(*) from "{table}" where "{column}"::text like %s',  # noqa: S608
                    (f"%{words}%",),
                )
                if cursor.fetchone() != (0,):
                    found.append(f"{table}.{column}")
        return found


@contextlib.contextmanager
def database() -> Iterator[Database]:
    """Run PostgreSQL in a temporary folder while the context lasts; skip where there is none."""
    programs = sorted(Path("/").glob(DEBIAN[1:]))
    found = shutil.which("initdb") if not programs else str(programs[-1])
    if found is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    own = None if os.geteuid() else "postgres"  # it refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="seedsweep-postgres-"))
    if own:
        entry = pwd.getpwnam(own)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    password, port = secrets.token_hex(16), free_port(HOST)
    word = folder / "password"
    word.write_text(password)
    if own:
        shutil.chown(word, own)
    word.chmod(0o600)

    def call(program: str, *arguments: str) -> None:
        command = [Path(found).with_name(program), *arguments]
        with (folder / "stderr").open("ab") as file:
            done = subprocess.run(
                command,
                cwd=folder,
                user=own,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # never a pipe: the server would keep it open
                stderr=file,
                check=False,
            )
        assert done.returncode == 0, (program, (folder / "stderr").read_text())

    data = folder / "data"
    try:
        how = ("--auth=scram-sha-256", f"--pwfile={word}", "--encoding=UTF8", "--no-sync")
        call("initdb", f"--pgdata={data}", f"--username={USER}", *how)
        options = OPTIONS.format(HOST, port)
        call("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
        yield Database(port, password)
    finally:
        _end(data / "postmaster.pid")
        shutil.rmtree(folder)


def _end(note: Path) -> None:
    """End the server that wrote its process id there, if it runs."""
    try:
        process = int(note.read_text().split()[0])
    except FileNotFoundError:
        return
    os.kill(process, signal.SIGINT)  # its clients are cut off, what they finished is kept
    until = time.monotonic() + 30
    while note.exists() and time.monotonic() < until:
        time.sleep(0.1)
