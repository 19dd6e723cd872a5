"""What a container of our image runs: `head`, `worker` or `mlflow`; other words are a command.

Each waits for what it needs, so containers may start in any order, on engines that know no health
checks too. `healthy ROLE` is such a check. Secrets are files in /run/secrets; what is made of them
lies in files of mode 0600, so that no process list and no `inspect` shows one.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

SECRETS = Path("/run/secrets")
HOME = Path.home()
TOKEN = "RAY_AUTH_TOKEN_PATH"  # noqa: S105 - the variable's name
GCS, DASHBOARD, AGENT, MLFLOW = 6379, 8265, 52365, 5000
HOSTS = "mlflow,mlflow:*,localhost,localhost:*,127.0.0.1,127.0.0.1:*"
DRIVER = "postgresql+psycopg2"  # by name: SQLAlchemy 2.1 takes psycopg 3 otherwise
SHARED = Path("/dev/shm")  # noqa: S108 - where Ray's object store lies
HEALTHY = {
    "head": f"http://127.0.0.1:{DASHBOARD}/api/gcs_healthz",
    "worker": f"http://127.0.0.1:{AGENT}/api/local_raylet_healthz",
    "mlflow": f"http://127.0.0.1:{MLFLOW}/health",
}


def say(text: str) -> None:
    """Tell the container's log."""
    sys.stderr.write(f"start: {text}\n")


def secret(name: str) -> str:
    """Return a secret; end where it is not there."""
    try:
        return (SECRETS / name).read_text(encoding="utf-8").strip()
    except OSError as failure:
        sys.exit(f"start: secret {name}: {failure.strerror}: {SECRETS / name}")


def keep(path: Path, text: str) -> Path:
    """Write a file that this user alone can read."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
    return path


def wait_for(host: str, port: int) -> None:
    """Wait until something listens; for ever, and say so once a minute."""
    tries = 0
    while True:
        try:
            with socket.create_connection((host, port), timeout=5):
                return
        except OSError as failure:
            if tries % 60 == 0:
                say(f"waiting for {host}:{port}: {failure}")
        tries += 1
        time.sleep(1)


def ray(*options: str) -> tuple[list[str], dict[str, str]]:
    """Return the command of a Ray node, and what it adds to the environment."""
    token = SECRETS / "ray_token"
    if TOKEN not in os.environ and "RAY_AUTH_TOKEN" not in os.environ and not secret(token.name):
        sys.exit(f"start: secret {token.name} is empty: {token}")
    amounts = [
        f"--{key.lower().replace('_', '-')}={os.environ[f'NODE_{key}']}"
        for key in ("NUM_CPUS", "NUM_GPUS")
        if os.environ.get(f"NODE_{key}")
    ]
    # Ray takes a share of the machine's memory, and a disk where the container's is smaller.
    room = os.statvfs(SHARED)
    amounts.append(f"--object-store-memory={room.f_blocks * room.f_frsize * 4 // 5}")
    command = ["ray", "start", "--block", "--disable-usage-stats", *options, *amounts]
    return command, {TOKEN: os.environ.get(TOKEN, str(token))}


def head() -> tuple[list[str], dict[str, str]]:
    """Return the head's command; drivers of jobs run there, so it knows how to log in to MLflow."""
    if (SECRETS / "mlflow_password").exists():
        name, password = os.environ.get("MLFLOW_USER", "admin"), secret("mlflow_password")
        lines = ["[mlflow]", f"mlflow_tracking_username = {name}"]
        lines += [f"mlflow_tracking_password = {password}", ""]
        keep(HOME / ".mlflow" / "credentials", "\n".join(lines))
    ports = [f"--port={GCS}", "--dashboard-host=0.0.0.0", f"--dashboard-port={DASHBOARD}"]
    return ray("--head", *ports)


def worker() -> tuple[list[str], dict[str, str]]:
    """Return a worker's command, when its head listens."""
    address = os.environ.get("HEAD", "head")
    wait_for(address, GCS)
    return ray(f"--address={address}:{GCS}", f"--dashboard-agent-listen-port={AGENT}")


def mlflow() -> tuple[list[str], dict[str, str]]:
    """Return the command of the MLflow server, when its databases are there."""
    host, user = os.environ.get("DATABASE_HOST", "postgres"), "mlflow"
    password = secret("postgres_password").replace("\\", "\\\\").replace(":", "\\:")
    passwords = keep(HOME / ".pgpass", f"{host}:*:*:{user}:{password}\n")
    os.environ["PGPASSFILE"] = str(passwords)
    wait_for(host, 5432)
    make_database(host, user, "mlflow_auth")
    rights = ["[mlflow]", "default_permission = READ", "admin_username = admin"]
    rights += [f"database_uri = {DRIVER}://{user}@{host}/mlflow_auth"]
    rights += ["auth_cache_ttl_seconds = 60", ""]
    secrets = {
        "MLFLOW_AUTH_ADMIN_PASSWORD": secret("mlflow_password"),
        "MLFLOW_AUTH_CONFIG_PATH": str(keep(HOME / ".mlflow" / "auth.ini", "\n".join(rights))),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secret("mlflow_key"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    hosts = ",".join(filter(None, [HOSTS, os.environ.get("MLFLOW_HOSTS")]))
    where = ["--host=0.0.0.0", f"--port={MLFLOW}", f"--allowed-hosts={hosts}"]
    store = [f"--backend-store-uri={DRIVER}://{user}@{host}/mlflow", "--serve-artifacts"]
    artifacts = f"--artifacts-destination={os.environ.get('ARTIFACTS', '/artifacts')}"
    workers = f"--workers={os.environ.get('MLFLOW_WORKERS', '2')}"
    return [
        "mlflow",
        "server",
        *where,
        *store,
        artifacts,
        workers,
        "--app-name=basic-auth",
    ], secrets


def make_database(host: str, user: str, name: str) -> None:
    """Make MLflow's second database, for its users, where it is not there; wait for the server."""
    import psycopg2  # noqa: PLC0415 - for this role alone

    while True:
        try:
            link = psycopg2.connect(host=host, user=user, dbname="mlflow")
            break
        except psycopg2.OperationalError as failure:
            say(f"waiting for PostgreSQL: {str(failure).strip()}")
            time.sleep(3)
    link.autocommit = True
    with link.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if cursor.fetchone() is None:
            cursor.execute(f'CREATE DATABASE "{name}"')
    link.close()


def healthy(role: str) -> int:
    """Return 0 where a role's server answers that it is well."""
    request = urllib.request.Request(HEALTHY[role])  # noqa: S310 - one of ours, on loopback
    token = SECRETS / "ray_token"
    if role != "mlflow":
        path = Path(os.environ.get(TOKEN, token))
        known = os.environ.get("RAY_AUTH_TOKEN") or path.read_text(encoding="utf-8").strip()
        request.add_header("Authorization", f"Bearer {known}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return int(answer.status != 200)  # noqa: PLR2004
    except OSError as failure:
        say(f"{role}: {failure}")
        return 1


ROLES = {"head": head, "worker": worker, "mlflow": mlflow}


def main(words: list[str]) -> None:
    """Become what the words say."""
    environment: Mapping[str, str] = {}
    if words[:1] == ["healthy"]:
        sys.exit(healthy(words[1]))
    if words and words[0] in ROLES:
        words, environment = ROLES[words[0]]()
    os.environ.update(environment)
    os.execvp(words[0], words)  # noqa: S606 - it becomes the container's process


if __name__ == "__main__":
    main(sys.argv[1:])
