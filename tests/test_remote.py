"""Sending studies to a cluster: what is checked and packed before anything is sent."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import tiny, write

from sweeps import __version__
from sweeps.freshness import source_digest
from sweeps.mistakes import Refused
from sweeps.remote import address, travel
from sweeps.remote.answer import answer_of, exit_code_of
from sweeps.study import load_study, read_yaml

EXPECTED = "expected the dashboard's, such as http://HEAD:8265"


def images(path: Path, count: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (count, 8, 8)).astype(np.uint8)
    np.savez(path, images=pixels, labels=np.arange(count) % 2)
    return path


def found(given: str | None, **environment: str) -> address.Address:
    return address.find(given, environment, Path("nowhere"))


def refusal(given: str | None, **environment: str) -> str:
    with pytest.raises(Refused) as caught:
        found(given, **environment)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "environment", "url"),
    [
        ("http://head:8265", {"RAY_API_SERVER_ADDRESS": "http://other:1"}, "http://head:8265"),
        ("HTTPS://head/ray/", {}, "https://head/ray"),
        ("http://[::1]:8265", {}, "http://[::1]:8265"),
        (None, {"RAY_ADDRESS": "http://a:1", "RAY_API_SERVER_ADDRESS": "http://b:2"}, "http://b:2"),
        (None, {"RAY_ADDRESS": "http://a:1", "RAY_API_SERVER_ADDRESS": ""}, "http://a:1"),
    ],
)
def test_the_address_is_that_of_the_option_then_of_the_variables(
    given: str | None, environment: dict[str, str], url: str
) -> None:
    assert found(given, **environment).url == url


@pytest.mark.parametrize(
    ("given", "environment", "sentence"),
    [
        (None, {}, f"no cluster is named; give --address: {EXPECTED}"),
        ("head:8265", {}, f"--address: 'head:8265' is not the address of a dashboard; {EXPECTED}"),
        ("ray://h:1", {}, f"--address: 'ray://h:1' is not the address of a dashboard; {EXPECTED}"),
        (
            None,
            {"RAY_ADDRESS": "auto"},
            f"RAY_ADDRESS: 'auto' is not the address of a dashboard; {EXPECTED}",
        ),
        ("http://h:99999", {}, f"--address: not an address; {EXPECTED}"),
        (
            "file:///etc/passwd",
            {},
            f"--address: 'file:///etc/passwd' is not the address of a dashboard; {EXPECTED}",
        ),
    ],
)
def test_what_is_no_dashboards_address(
    given: str | None, environment: dict[str, str], sentence: str
) -> None:
    assert refusal(given, **environment) == sentence


@pytest.mark.parametrize(
    "said",
    [
        "http://me:hunter2@h:1",
        "http://hunter2@h:1",
        "http://h:1/?token=hunter2",
        "http://h:1/#hunter2",
    ],
)
def test_a_token_in_an_address_is_refused_and_not_repeated(said: str) -> None:
    assert refusal(said) == (
        "--address: an address holds no user, password or token; set RAY_AUTH_TOKEN_PATH instead"
    )


def test_the_token_is_read_where_ray_reads_it_and_is_never_shown(tmp_path: Path) -> None:
    for name in ("named", "home"):
        (tmp_path / name).write_text(f"{name}-secret\n")
    named, home = str(tmp_path / "named"), tmp_path / "home"
    both = {"RAY_AUTH_TOKEN": "own-secret", "RAY_AUTH_TOKEN_PATH": named}
    own = address.find("http://h:1", both, home)
    assert (own.headers, own.source) == ({"Authorization": "Bearer own-secret"}, "RAY_AUTH_TOKEN")
    assert "secret" not in repr(own)
    file = address.find("http://h:1", {"RAY_AUTH_TOKEN_PATH": named}, home)
    assert (file.token, file.source) == ("named-secret", "RAY_AUTH_TOKEN_PATH")
    last = address.find("http://h:1", {}, home)
    assert (last.token, last.source) == ("home-secret", str(home))
    assert found("http://h:1").headers == {}


def test_a_token_that_cannot_be_sent(tmp_path: Path) -> None:
    assert refusal("http://h:1", RAY_AUTH_TOKEN="two\nlines") == (  # noqa: S106 - made up
        "RAY_AUTH_TOKEN: not a token: it holds blanks or letters that no header can"
    )
    fix = "the file that holds the cluster's"
    assert refusal("http://h:1", RAY_AUTH_TOKEN_PATH=str(tmp_path)) == (
        f"RAY_AUTH_TOKEN_PATH: {tmp_path} holds no token that can be read; name {fix}"
    )
    assert refusal("http://h:1", RAY_AUTH_MODE="token") == (
        f"RAY_AUTH_MODE is token, and there is no token; set RAY_AUTH_TOKEN_PATH to {fix}"
    )


@pytest.mark.parametrize(
    ("url", "token", "sentence"),
    [
        ("http://127.0.0.2:1", "t", None),
        ("http://localhost:1", None, None),
        ("http://[::1]:1", "t", None),
        ("https://head:1", "t", None),
        (
            "http://head:1",
            "t",
            "http://head:1: the token goes there unencrypted; "
            "use https, or an ssh tunnel to the head",
        ),
        (
            "https://head:1",
            None,
            "https://head:1: asks for no token: whoever reaches it runs code there; "
            "start Ray with a token",
        ),
        (
            "http://localhost.evil.org:1",
            "t",
            "http://localhost.evil.org:1: the token goes there unencrypted; "
            "use https, or an ssh tunnel to the head",
        ),
    ],
)
def test_who_could_listen_is_said(url: str, token: str | None, sentence: str | None) -> None:
    assert address.warning(address.Address(url, token, "RAY_AUTH_TOKEN")) == sentence


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:hunter2@mlflow:5000",
        "postgresql://me:hunter2@db/x",
        "postgresql://db/x?password=hunter2",
    ],
)
def test_a_password_does_not_travel(uri: str) -> None:
    with pytest.raises(Refused) as caught:
        travel.variables({"MLFLOW_TRACKING_URI": uri})
    assert str(caught.value) == (
        "MLFLOW_TRACKING_URI: holds a password or a query, and all who list jobs could read it; "
        "leave them out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the "
        "environment that the cluster's head is started in"
    )


def test_what_a_job_is_told() -> None:
    grace = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
    secrets = {"MLFLOW_TRACKING_PASSWORD": "hunter2", "RAY_AUTH_TOKEN": "t", "HOME": "/home/me"}
    assert travel.variables(secrets) == grace
    uri = {"MLFLOW_TRACKING_URI": "https://mlflow:5000"}
    assert travel.variables({**secrets, **uri}) == {**grace, **uri}


def test_a_study_folder_is_an_absolute_path() -> None:
    travel.check_out("/shared/study")
    travel.check_out("s3://bucket/study")  # which the laptop may not be able to see
    with pytest.raises(Refused, match="credentials have no place in it"):
        travel.check_out("s3://key:secret@bucket/study")
    with pytest.raises(Refused) as caught:
        travel.check_out("runs/study")
    assert str(caught.value) == (
        "--out runs/study: expected an absolute path, on storage that all nodes share, or s3://"
    )


def packed(tmp_path: Path, study: Any, **more: Any) -> tuple[travel.Luggage, dict[str, bytes]]:
    (tmp_path / "to").mkdir(exist_ok=True)
    luggage = travel.pack(write(tmp_path, study), more.get("seeds"), "head", tmp_path / "to")
    with zipfile.ZipFile(luggage.package) as archive:
        return luggage, {name: archive.read(name) for name in archive.namelist()}


def test_what_is_relative_to_the_file_travels_by_its_digest(tmp_path: Path) -> None:
    mine = images(tmp_path / "data" / "mine.npz")
    luggage, contents = packed(tmp_path, tiny(dataset={"path": "data/mine.npz"}))
    listed = json.loads(contents.pop("travel.json"))
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert listed == {
        "study": "tiny",
        "seedsweep": __version__,
        "source": source_digest(),
        "files": digests,
    }
    (there,) = [name for name in contents if name.endswith("/mine.npz")]
    assert contents[there] == mine.read_bytes()
    (tmp_path / "study.yaml").write_bytes(contents[luggage.file])
    assert read_yaml(tmp_path / "study.yaml")["dataset"]["path"] == f"../{there}"
    again, same = packed(tmp_path, tiny(dataset={"path": "data/mine.npz"}))
    assert again.digest == luggage.digest, "the same package is not sent twice"
    assert contents.items() <= same.items()


def test_a_folder_of_images_travels_without_what_is_no_image(tmp_path: Path) -> None:
    from PIL import Image  # noqa: PLC0415

    for name in ("ones/a.png", "ones/b.png", "eights/a.png", "eights/b.png", "eights/.c.png"):
        file = tmp_path / "cuts" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), len(name), np.uint8)).save(file)
    (tmp_path / "cuts" / "notes.txt").write_text("private")
    luggage, contents = packed(tmp_path, tiny(dataset={"path": "cuts"}))
    data = sorted(name.partition("/")[2] for name in contents if name.endswith(".png"))
    assert data == ["cuts/eights/a.png", "cuts/eights/b.png", "cuts/ones/a.png", "cuts/ones/b.png"]
    assert not any("notes" in name or ".c" in name for name in contents)
    assert luggage.file in contents


def test_an_absolute_path_is_the_clusters_and_the_rest_is_checked_here(tmp_path: Path) -> None:
    dataset = {"path": "/shared/only-there.npz"}
    luggage, contents = packed(tmp_path, tiny(dataset=dataset))
    assert sorted(contents) == sorted([luggage.file, "travel.json"])
    wrong = tiny(dataset=dataset, seeds=0, cells=[{"objective": "ae", "prior": "normal"}])
    with pytest.raises(Refused) as caught:
        packed(tmp_path, wrong)
    assert [text.partition(": ")[2].partition(": ")[0] for text in caught.value.mistakes] == [
        "seeds",
        "cells[0].prior",
    ]


def test_mistakes_are_those_of_run(tmp_path: Path) -> None:
    study = write(tmp_path, tiny(seeds=0, metric="nonsense"))
    with pytest.raises(Refused) as of_run:
        load_study(study)
    with pytest.raises(Refused) as caught:
        travel.pack(study, None, "head", tmp_path)
    assert caught.value.mistakes == of_run.value.mistakes
    with pytest.raises(Refused) as caught:
        travel.pack(write(tmp_path, tiny()), 0, "head", tmp_path)
    assert str(caught.value) == "--seeds: expected 1 to 100000 seeds, got 0"


def test_what_is_too_large_to_travel(tmp_path: Path) -> None:
    """One byte decides; nothing is read of what is too large."""
    images(tmp_path / "big data.npz")
    with (tmp_path / "big data.npz").open("ab") as file:
        file.truncate(65 * 2**20)
    study = write(tmp_path, tiny(dataset={"path": "big data.npz"}))
    with pytest.raises(Refused) as caught:
        travel.pack(study, None, "head", tmp_path)
    assert str(caught.value) == (
        "x.yaml: dataset.path: big data.npz has 65 MiB, and 64 MiB travel with a job; copy it to "
        "storage that all nodes share: rsync -a 'big data.npz' 'head:/shared/big data.npz'; "
        "and write in the file where it is there: path: /shared/big data.npz"
    )


def arrive(tmp_path: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    came = tmp_path / "came"
    for name, content in contents.items():
        (came / name).parent.mkdir(parents=True, exist_ok=True)
        (came / name).write_bytes(content)
    monkeypatch.chdir(came)
    return tmp_path / "out"


def test_what_came_is_kept_in_the_study_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(tmp_path / "data" / "mine.npz")
    luggage, contents = packed(tmp_path, tiny(dataset={"path": "data/mine.npz"}))
    out = arrive(tmp_path, contents, monkeypatch)
    file, other = travel.unpack(luggage.file, luggage.digest, out)
    assert (file, other) == (out / "submitted" / luggage.file, None)
    study, dataset = load_study(file)
    assert (study.name, dataset.images.shape) == ("tiny", (12, 1, 8, 8))
    assert Path.cwd() == out, "what is written beside the study stays"
    (kept,) = out.glob("submitted/*/mine.npz")
    kept.write_bytes(b"damaged")
    arrive(tmp_path, contents, monkeypatch)
    travel.unpack(luggage.file, luggage.digest, out)
    assert load_study(file)[1].image_digest == dataset.image_digest, "and is mended from what came"


@pytest.mark.parametrize("what", ["travel.json", "mine.npz", "x.yaml"])
def test_nothing_that_was_changed_is_used(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(tmp_path / "data" / "mine.npz")
    luggage, contents = packed(tmp_path, tiny(dataset={"path": "data/mine.npz"}))
    (name,) = [name for name in contents if name.endswith(what)]
    before, contents[name] = contents[name], contents[name] + b" "
    out = arrive(tmp_path, contents, monkeypatch)
    with pytest.raises(Refused) as caught:
        travel.unpack(luggage.file, luggage.digest, out)
    old, new = (hashlib.sha256(one).hexdigest()[:16] for one in (before, contents[name]))
    assert str(caught.value) == (
        f"{name}: changed on its way to the cluster: expected the SHA-256 {old}..., got {new}...; "
        "nothing was trained; submit again"
    )
    (tmp_path / "came" / name).unlink()
    with pytest.raises(Refused) as caught:
        travel.unpack(luggage.file, luggage.digest, out)
    assert str(caught.value) == (
        f"{name}: did not come with the job: No such file or directory; submit again"
    )
    assert not out.exists()


@pytest.mark.parametrize("name", ["../out-of-it", "/etc/passwd", "a/../../b", "a\\..\\b"])
def test_a_name_that_leads_out_of_the_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = json.dumps({"study": "tiny", "files": {name: "0"}}).encode()
    out = arrive(tmp_path, {"travel.json": listing}, monkeypatch)
    with pytest.raises(Refused) as caught:
        travel.unpack("x.yaml", hashlib.sha256(listing).hexdigest(), out)
    assert str(caught.value) == f"{name}: a name that leads out of the study folder"


ANSWER = {"study": "tiny", "planned": 3, "out": "/shared/tiny"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (json.dumps(ANSWER), ANSWER),
        (json.dumps(ANSWER) + "(raylet) a word of another process", ANSWER),
        (json.dumps({**ANSWER, "study": "other"}), None),
        (json.dumps({"study": "tiny"}), None),
        (json.dumps(ANSWER)[:-5], None),
        ('{"study": "tiny", "planned": NaN', None),
        (f"a note: {json.dumps(ANSWER)}", None),
        ("tiny: 3 of 3 runs to train, auto", None),
    ],
)
def test_the_answer_is_found_among_other_lines(line: str, found: dict[str, Any] | None) -> None:
    assert answer_of(line, "tiny") == found


@dataclass(frozen=True)
class Ended:
    status: str
    exit_code: int | None = None
    message: str = ""
    id: str = "tiny-1"


AGAIN = "what was finished is kept; submit again to go on"


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (Ended("SUCCEEDED", 0), 0),
        (Ended("FAILED", 1), 1),
        (Ended("FAILED", 2), 2),
        (Ended("FAILED", 130), 130),
        (Ended("STOPPED"), 130),
    ],
)
def test_a_job_ends_with_the_code_of_run(job: Ended, code: int) -> None:
    assert exit_code_of(job, answered=True) == code


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        (
            Ended("FAILED", 127),
            "tiny-1: the cluster's head finds no command `sweeps`; install seedsweep on every "
            "node, and start Ray with its environment's bin folder on PATH",
        ),
        (
            Ended("FAILED", 1),
            f"tiny-1: ended with exit code 1; sweeps logs tiny-1 says more; {AGAIN}",
        ),
        (
            Ended("FAILED", 137),
            f"tiny-1: ended with exit code 137; sweeps logs tiny-1 says more; {AGAIN}",
        ),
        (
            Ended("FAILED", None, "the node\n  died"),
            f"tiny-1: failed: the node died; {AGAIN}",
        ),
        (Ended("FAILED"), f"tiny-1: failed: its cluster says no reason; {AGAIN}"),
    ],
)
def test_a_job_that_did_not_come_so_far(job: Ended, sentence: str) -> None:
    with pytest.raises(Refused) as caught:
        exit_code_of(job, answered=False)
    assert str(caught.value) == sentence


def test_without_rays_client_of_jobs(tmp_path: Path) -> None:
    """As `pip install seedsweep` leaves it, which brings ray[tune] alone."""
    write(tmp_path, tiny())
    hidden = "import sys; sys.modules['aiohttp'] = None; from sweeps.cli import main"
    words = ["submit", "x.yaml", "--address", "http://127.0.0.1:1", "--out", str(tmp_path / "o")]
    code = f"{hidden}; sys.exit(main({words!r}))"
    call = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "RAY_AUTH_TOKEN": "t"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (call.returncode, call.stdout) == (2, "")
    assert call.stderr == (
        "jobs need Ray's client of them, which is not installed: "
        f"pip install 'ray[default]=={metadata.version('ray')}'\n"
    )
