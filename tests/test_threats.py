"""What docs/threats.md says is refused or defused is, in the sentence that a user reads.

Attempts that other tests have already are not tried again here: the page names those.
"""

from __future__ import annotations

import ast
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import images as made
import numpy as np
import pytest
from studies import as_yaml, tiny, write
from test_fuzz_studies import RICH, places, replaced
from tracked import level, shown

from sweeps import cli
from sweeps.folder import lock
from sweeps.mistakes import Refused
from sweeps.study import load_study

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "threats.md").read_text()
SCRIPT = "<script>alert(1)</script>"
IMAGE = "![x](http://127.0.0.1:9/seen.png) <img src=x onerror=alert(1)> [y](javascript:alert(1))"
ELSEWHERE = "/../../../../elsewhere"
CALL = "__import__('pathlib').Path('owned').touch()"


def refused(folder: Path, study: Any) -> list[str]:
    """Return what is said of a study; nothing was written, and nothing took long."""
    start = time.monotonic()
    with pytest.raises(Refused) as found:
        load_study(write(folder, study))
    assert time.monotonic() - start < 10
    assert [path.name for path in folder.iterdir()] == ["x.yaml"]
    return found.value.mistakes


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


# The page and its tests


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_attempt_of_the_page_names_a_test_that_exists() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    attempts = [row for row in rows if not row.startswith(("| attempt", "| ---"))]
    assert len(attempts) > 30
    for row in attempts:
        assert len(row.strip("|").split(" | ")) == 3, row
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"no test in: {row}"
        for file, name in named:
            assert name in functions(ROOT / file), f"{file} has no {name}"


def test_each_test_here_is_on_the_page() -> None:
    own = {name for name in functions(Path(__file__)) if name.startswith("test_")}
    named = set(re.findall(r"`tests/test_threats\.py::(\w+)`", PAGE))
    about_the_page = {name for name in own if "_the_page" in name}
    assert named == own - about_the_page


# Study files


@pytest.mark.parametrize(
    ("name", "offer"),
    [
        ("../../etc", "; try 'etc'"),
        ("/etc/cron", "; try 'etc-cron'"),
        ("a/../../b", "; try 'a-b'"),
        ("..", ""),
        ("a\x00b", "; try 'a-b'"),
        ("a\n", "; try 'a'"),
        ("a' or 1=1", "; try 'a-or-1-1'"),
        (SCRIPT, "; try 'script-alert-1-script'"),
    ],
)
def test_a_name_that_leads_elsewhere(tmp_path: Path, name: str, offer: str) -> None:
    shown_as = "".join(letter if letter.isprintable() else "?" for letter in name)
    expected = f"expected lower-case letters, digits and hyphens, got '{shown_as}'{offer}"
    text = json.dumps(tiny(name=name))  # JSON is YAML
    assert refused(tmp_path, text) == [f"x.yaml: name: {expected}"]


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{c}: &{c} {{<<: [{', '.join([f'*{p}'] * 9)}]}}\n"
    for p, c in zip("abcdefgh", "bcdefghi", strict=True)
)
NO_TAG = "could not determine a constructor for the tag"
MANY = "more than 200000 values; is an alias within itself?"
DEEP = "more than 60 levels deep"
DIGITS = "a number of more than 400 digits"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f'name: !!python/object/apply:os.system ["{CALL}"]',
            f"line 1, column 7: {NO_TAG} 'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
        (
            "name: !!python/name:os.system",
            f"line 1, column 7: {NO_TAG} 'tag:yaml.org,2002:python/name:os.system'",
        ),
        ("name: !include /etc/passwd", f"line 1, column 7: {NO_TAG} '!include'"),
        (ALIASES, f"line 6, column 12: {MANY}"),
        (MERGES, f"line 6, column 29: {MANY}"),
        ("a: &a {<<: *a}", f"line 1, column 12: {MANY}"),
        ("cells: " + "[" * 50_000, f"line 1, column 67: {DEEP}"),
        ("".join(f"{'  ' * depth}a:\n" for depth in range(500)), f"line 60, column 119: {DEEP}"),
        ("seeds: " + "9" * 5_000, f"line 1, column 8: {DIGITS}"),
        ("seeds: 0x" + "f" * 5_000, f"line 1, column 8: {DIGITS}"),
        ("low: 0." + "1" * 5_000, f"line 1, column 6: {DIGITS}"),
        ("a: &a 1\nb: &a 2", "line 2, column 4: the anchor 'a' is there twice"),
    ],
    ids=lambda text: re.sub(r"\W+", "-", text[:30]),
)
def test_yaml_that_runs_something_or_never_ends(tmp_path: Path, text: str, said: str) -> None:
    assert refused(tmp_path, text + "\n") == [f"x.yaml: {said}"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": 10**30}, f"seeds: expected 1 to 100000 seeds, got {10**30}"),
        ({"low": float("inf")}, "low: expected a finite number, got inf"),
        (
            {"spec": {**tiny()["spec"], "network": {"hidden": [10**9]}}},
            "spec.network.hidden[0]: expected at most 65536, got 1000000000",
        ),
    ],
)
def test_numbers_that_are_too_large(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert refused(tmp_path, tiny(**changes)) == [f"x.yaml: {said}"]


def test_more_configurations_than_can_be(tmp_path: Path) -> None:
    rates = [round(0.001 + place * 1e-6, 6) for place in range(400)]
    block = {"objective": "ae", "training": {"learning_rate": rates, "steps": list(range(1, 401))}}
    said = "x.yaml: cells[0]: more than 100000 configurations"
    assert refused(tmp_path, tiny(cells=[block])) == [said]


@pytest.mark.parametrize("key", ["eval", "grid_search"])
def test_what_ray_tune_would_run_or_expand(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune evaluates {eval: TEXT} wherever it stands; it is refused wherever it stands here."""
    monkeypatch.chdir(tmp_path)
    harmful = {key: CALL if key == "eval" else [1, 2]}
    everywhere = places(RICH)
    for place in everywhere if os.environ.get("SEEDSWEEP_ALL") else everywhere[::4]:
        said = refused(tmp_path, replaced(RICH, place, harmful))
        assert said, place
        assert (tmp_path / "owned").exists() is False
    said = refused(tmp_path, tiny(spec={**tiny()["spec"], **harmful}))
    known = "activation, code, divergence, network, objective, prior, training"
    assert said == [f"x.yaml: spec: unknown key '{key}'; known: {known}"]


FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen"),
    *("pickle.load", "pickle.loads", "torch.load", "joblib.load", "Tuner.restore"),
    *("tune.Tuner.restore", "cloudpickle.load", "cloudpickle.loads"),
}


def test_nothing_of_ours_runs_what_it_reads() -> None:
    """One place reads pickles: Ray's process, from the driver that started it."""
    found = []
    for path in [*(ROOT / "sweeps").rglob("*.py"), *(ROOT / "models").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            if (name := ast.unparse(node.func)) in FORBIDDEN:
                found.append(f"{path.relative_to(ROOT)}: {name}")
            for word in node.keywords:
                if word.arg in ("shell", "allow_pickle"):
                    value = ast.unparse(word.value)
                    assert value == "False", f"{path.relative_to(ROOT)}: {word.arg}={value}"
    assert found == ["sweeps/launch/tuning.py: pickle.load"]


# Words and names of users on their way to files, page, terminal and MLflow


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a study whose every word is an attempt, deep in a folder of its own."""
    top = tmp_path_factory.mktemp("hostile")
    folder = top / "a" / "b" / "c" / "d" / "e"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 2
    pictures = (rng.integers(1, 100, (60, 6, 6)) + 80 * labels[:, None, None]).astype(np.uint8)
    made.npz(
        folder,
        images=pictures,
        labels=labels,
        class_names=np.array([f"{ELSEWHERE} {SCRIPT}", f"=1+1 {IMAGE}"]),
        **{f"cov_{ELSEWHERE}": rng.normal(size=60), f"cov_{SCRIPT}\x1b[31m": rng.normal(size=60)},
    )
    study = tiny(
        name="hostile",
        question=f"{SCRIPT} {IMAGE}\n\n# {{{{ 7 * 7 }}}}",
        dataset={"path": "my.npz"},
        seeds=2,
        cells=[{"objective": "ae"}],
    )
    write(folder, study)
    call = subprocess.run(
        [Path(sys.executable).parent / "sweeps", "run", "x.yaml", "--launcher", "inline"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert call.returncode == 0, call.stderr
    (top / "said").write_text(call.stdout + call.stderr)
    return top


def test_words_that_lead_out_of_the_folder(hostile: Path) -> None:
    inside = "a/b/c/d/e"
    found = {path for path in files(hostile) if not path.startswith(f"{inside}/runs/hostile/")}
    assert found == {"said", f"{inside}/my.npz", f"{inside}/x.yaml", f"{inside}/mlflow.db"} | {
        path for path in found if path.startswith(f"{inside}/mlruns/")
    }
    assert not list(hostile.parent.glob("*elsewhere*"))
    assert f"{inside}/runs/hostile/report.html" in files(hostile)


def test_words_that_are_html(hostile: Path) -> None:
    page = (hostile / "a/b/c/d/e/runs/hostile/report.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1, "our own"
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<img src=x" not in page
    assert "javascript:alert(1)" in page
    assert 'href="javascript' not in page
    assert "{{ 7 * 7 }}" in page
    policy = re.search(r'http-equiv="Content-Security-Policy"\s+content="([^"]*)"', page)
    assert policy
    assert "default-src 'none'" in policy[1]


def test_words_that_are_markdown(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow shows a study's description as Markdown: an image there would be fetched."""
    monkeypatch.chdir(hostile)
    store = f"sqlite:///{hostile}/a/b/c/d/e/mlflow.db"
    (top,) = level(shown(store, "hostile"), "study").values()
    note = top.data.tags["mlflow.note.content"].split("\n\n")[0]
    assert note == (
        r"\<script\>alert(1)\</script\> !\[x\](http://127.0.0.1:9/seen.png) "
        r"\<img src=x onerror=alert(1)\> \[y\](javascript:alert(1)) # {{ 7 \* 7 }}"
    )


def test_words_that_are_control_codes(hostile: Path) -> None:
    said = (hostile / "said").read_text()
    assert "\x1b" not in said
    assert "hostile: 2 of 2 runs to train, inline" in said


def test_an_exported_dataset_stays_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made.npz(tmp_path, "x.npz", **{f"cov_{ELSEWHERE}": np.arange(12.0)})
    (tmp_path / "in" / "side").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in" / "side")
    assert cli.main(["data", "export", str(source), "--out", "out"]) == 0
    assert files(tmp_path) == {
        "x.npz",
        "in/side/out/x.npz",
        "in/side/out/contact-sheet.png",
    }


@pytest.mark.parametrize("name", ["...csv", "..csv"])
def test_a_table_whose_name_leads_elsewhere(name: str, folder: Path) -> None:
    """Its column is called so as well."""
    (folder / name).write_text(f"m,s,{ELSEWHERE}\na,1,2\na,2,3\nb,1,4\nb,2,5\n")
    flags = ["--cell", "m", "--seed", "s", "--metric", ELSEWHERE]
    assert cli.main(["report", name, *flags]) == 0
    assert {path.split("/")[0] for path in files(folder)} == {name, "runs"}
    assert {path.name for path in (folder / "runs").iterdir()} == {"table"}
    assert (folder / "runs" / "table" / "figures" / "seeds-elsewhere.svg").is_file()


@pytest.mark.parametrize("text", ["name: [x]", "name: {eval: 1}", "name: ../x", "a: 1"])
def test_a_name_that_the_ui_would_ask_for(
    text: str, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "store.db").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/store.db")
    assert cli.main(["ui", str(write(folder, text))]) == 2
    out, err = capfd.readouterr()
    got = {"name: [x]": "a list", "name: {eval: 1}": "a mapping", "a: 1": "nothing"}
    said = got.get(text, "'../x' (text)")
    assert out == ""
    assert err == f"x.yaml: name: expected lower-case letters, digits and hyphens, got {said}\n"


# Somebody else's study folder


@pytest.mark.parametrize("name", [".lock", "records", "checkpoints", "timeline", "tune"])
def test_a_folder_with_a_link_in_it(name: str, tmp_path: Path) -> None:
    """A lock that is a link would empty what it leads to; a folder would have its files moved."""
    (tmp_path / "mine").write_text("my own words")
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "mine")
    with pytest.raises(Refused) as found, lock.hold(folder, "x"):
        pass
    assert found.value.mistakes == [
        f"{folder / name}: a link, and a study folder holds its files itself; "
        "put there what it leads to, or choose another folder with --out"
    ]
    assert (tmp_path / "mine").read_text() == "my own words"


@contextmanager
def owned_by(folder: Path, user: int) -> Iterator[None]:
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    os.chown(folder, user, -1)
    yield


@pytest.mark.parametrize(("user", "name"), [(65534, "nobody"), (54321, "user 54321")])
def test_a_folder_of_another_user(user: int, name: str, tmp_path: Path) -> None:
    with owned_by(tmp_path, user), lock.hold(tmp_path, "x") as warning:
        assert warning == f"{tmp_path}: belongs to {name}, who can change every number in it"
    os.chown(tmp_path, 0, -1)
    with lock.hold(tmp_path, "x") as warning:
        assert warning is None


def test_a_folder_whose_study_is_another(
    hostile: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    theirs = hostile / "a/b/c/d/e/runs/hostile"
    before = files(theirs)
    write(folder, tiny(name="mine", cells=[{"objective": "ae"}]))
    assert cli.main(["run", "x.yaml", "--launcher", "inline", "--out", str(theirs)]) == 2
    said = f"{theirs}: holds the study 'hostile', not 'mine'; choose another --out\n"
    assert capfd.readouterr() == ("", said)
    assert files(theirs) == before


def test_a_study_in_a_folder_is_a_study_file(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What came with a folder is read as strictly as what came by itself."""
    theirs = folder / "theirs"
    theirs.mkdir()
    (theirs / "study.yaml").write_text(as_yaml(tiny(spec={"eval": CALL})))
    for command in ("run", "plan", "report", "track"):
        assert cli.main([command, str(theirs)]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.splitlines()[0].startswith("study.yaml: spec: unknown key 'eval'"), command
    assert not (folder / "owned").exists()


# Addresses with a password


@pytest.mark.timeout(300)  # two commands
def test_a_password_in_an_address(folder: Path) -> None:
    """It is neither said nor written, by `run` and by `track`."""
    write(folder, tiny(cells=[{"objective": "ae"}], seeds=1))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {"MLFLOW_TRACKING_URI": f"http://me:s3cret-w0rd@127.0.0.1:{port}"}
    environment = {**os.environ, **own, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    for words in (["run", "x.yaml", "--launcher", "inline"], ["track", "runs/tiny"]):
        call = subprocess.run(
            [Path(sys.executable).parent / "sweeps", *words, "--json"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert json.loads(call.stdout)["tracking"] == "pending"
        assert [line for line in call.stderr.splitlines() if "MLflow" in line] == [
            f"MLflow: MLflow at http://127.0.0.1:{port} does not answer: start it, or correct "
            "MLFLOW_TRACKING_URI; then: sweeps track runs/tiny"
        ]
        assert "s3cret" not in call.stdout + call.stderr
    for path in folder.rglob("*"):
        assert path.is_dir() or b"s3cret" not in path.read_bytes(), path
