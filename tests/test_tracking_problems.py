"""What goes wrong with a store, in a sentence, soon, and without a secret."""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tracked import Finished, planned

from sweeps.tracking import Tracked
from sweeps.tracking.problems import scrubbed, without_credentials


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return a study without a record: no store here is reached."""
    return planned(tmp_path_factory.mktemp("planned") / "small")


def test_a_dead_server_is_pending_soon(
    small: Finished, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    environment, level_before = dict(os.environ), logging.getLogger("urllib3").level
    start = time.monotonic()
    tracked = small.track("http://me:s3cret@127.0.0.1:1")
    assert time.monotonic() - start < 20
    assert tracked == Tracked(
        "http://127.0.0.1:1",
        "pending",
        "MLflow at http://127.0.0.1:1 does not answer: start it, or correct MLFLOW_TRACKING_URI; "
        f"then: sweeps track {small.folder}",
    )
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == environment
    assert logging.getLogger("urllib3").level == level_before
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("uri", "where", "what"),
    [
        (
            "gopher://me:s3cret@host/x",
            "gopher://host/x",
            "is no address that MLflow knows: expected http(s)://, postgresql://, mysql:// or "
            "sqlite:///",
        ),
        (
            "./files",
            "./files",
            "is a folder of files, which MLflow no longer writes: use sqlite:///FILE",
        ),
        (
            "postgresql://me:s3cret@host/db",
            "postgresql://host/db",
            "needs a driver: pip install psycopg2-binary, and write postgresql+psycopg2://",
        ),
        (
            "sqlite:///text.db",
            "sqlite:///text.db",
            "failed (DatabaseError: (sqlite3.DatabaseError) file is not a database)",
        ),
    ],
)
def test_addresses_that_cannot_work(
    small: Finished,
    uri: str,
    where: str,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.db").write_text("no database at all, " * 100)
    sentence = f"MLflow at {where} {what}; then: sweeps track {small.folder}"
    assert small.track(uri) == Tracked(where, "pending", sentence)


class Refusing(BaseHTTPRequestHandler):
    """Answer as MLflow's basic-auth app does to a wrong password."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"You are not authenticated. Please see the documentation")

    def log_message(self, *_: object) -> None:
        pass


def test_a_refused_password(small: Finished) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    where = f"127.0.0.1:{server.server_address[1]}"
    tracked = small.track(f"http://me:s3cret@{where}")
    server.shutdown()
    thread.join()
    server.server_close()
    assert tracked.problem == (
        f"MLflow at http://{where} refused the user name or password: correct those in "
        f"MLFLOW_TRACKING_URI; then: sweeps track {small.folder}"
    )
    assert tracked.uri == f"http://{where}"


def certificate(folder: Path) -> Path:
    """Write a certificate that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    own = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "own.pem").write_bytes(key.private_bytes(pem, *plain) + own.public_bytes(pem))
    return folder / "own.pem"


@pytest.mark.parametrize(
    ("tls", "sentence"),
    [
        (
            True,
            "has a certificate that is not trusted: set MLFLOW_TRACKING_SERVER_CERT_PATH",
        ),
        (False, "speaks http:// there, not https://: correct MLFLOW_TRACKING_URI"),
    ],
)
def test_a_certificate_that_nobody_trusts(
    small: Finished, tmp_path: Path, tls: bool, sentence: str
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate(tmp_path))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    where = f"127.0.0.1:{server.server_address[1]}"
    tracked = small.track(f"https://{where}")
    server.shutdown()
    thread.join()
    server.server_close()
    expected = f"MLflow at https://{where} {sentence}; then: sweeps track {small.folder}"
    assert tracked.problem == expected


@pytest.mark.parametrize(
    ("uri", "shown_as"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://me:s3cret@host:5000/mlflow", "https://host:5000/mlflow"),
        ("https://s3cret@host", "https://host"),
        ("http://me:p@s3cret@host", "http://host"),
        ("postgresql://me:s3cret@host:5432/db?sslmode=on", "postgresql://host:5432/db"),
        ("postgresql://host/db?user=me&password=s3cret", "postgresql://host/db"),
        ("postgresql://host/db?password=x@s3cret", "postgresql://…"),
        ("postgresql://me:x/s3cret@host/db", "postgresql://…"),
        ("postgresql://me:x?s3cret@host/db", "postgresql://…"),
        ("postgresql://me:x#s3cret@host/db", "postgresql://host/db"),
        ("me:s3cret@host", "host"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_no_secret_of_an_address_is_shown(uri: str, shown_as: str) -> None:
    assert without_credentials(uri) == shown_as


@pytest.mark.parametrize(
    ("uri", "said", "told"),
    [
        ("http://me:s3cret@host", "to http://me:s3cret@host/x", "to http://host/x"),
        ("http://me:s3cret@host", "user me, word 's3cret'\nmore", "user me, word '***'"),
        ("http://me:s%2Fcret@host", "word 's/cret'", "word '***'"),
        ("postgresql://host/db?password=s3cret", "password=s3cret", "password=***"),
    ],
)
def test_no_secret_of_an_address_is_repeated(uri: str, said: str, told: str) -> None:
    assert scrubbed(said, uri) == told


@pytest.mark.parametrize(
    "uri", ["gopher://{}@host", "mysql+none://{}@host/db", "mysql+none://host/db?password={}"]
)
@pytest.mark.parametrize("secret", ["me:s3cret", "me:x/s3cret", "me:x%2Fs3cret", "me:s3cret%"])
def test_no_secret_is_in_what_is_tracked(small: Finished, uri: str, secret: str) -> None:
    assert "s3cret" not in repr(small.track(uri.format(secret)))
