"""A real MLflow server on loopback shows what a file does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from servers import Server
from tracked import assert_equal_to_tables, content, level, planned, shown, train

from sweeps.cli import main
from sweeps.tracking import Tracked, tracking_uri


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a real MLflow server on loopback, and end it."""
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.start()
        yield server.address
    finally:
        server.end()


def test_a_server_shows_the_same(
    server: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small, uri = train(folder / "small"), tracking_uri()
    (small.folder / "figures").mkdir()
    (small.folder / "figures" / "seeds.svg").write_text("<svg/>")
    small.track(uri)
    assert small.track(server) == Tracked(server, "written", None)
    assert capfd.readouterr() == ("", ""), "MLflow would print a link for each run"
    assert content(server) == content(uri)
    assert_equal_to_tables(server, small)
    (top,) = level(shown(server), "study").values()
    client = MlflowClient(server)
    files = {item.path for item in client.list_artifacts(top.info.run_id)}
    assert files == {"figures", "results.parquet", "summary.parquet"}
    before = content(server)
    assert small.track(server).state == "written"
    assert content(server) == before


def test_the_ui_of_a_server_is_its_own(
    server: str, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = planned(folder / "other", name="other")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.replace("//", "//me:s3cret@"))
    assert main(["ui"]) == 0
    assert capfd.readouterr() == (f"{server}/#/experiments\n", "")
    assert main(["ui", "other/x.yaml"]) == 2
    assert capfd.readouterr() == (
        "",
        f"MLflow at {server} has no study 'other'; "
        "first: sweeps run, or where it has run before: sweeps track\n",
    )
    other.track(server)
    experiment = MlflowClient(server).get_experiment_by_name("other")
    assert experiment is not None
    assert main(["ui", "other/x.yaml"]) == 0
    out, err = capfd.readouterr()
    runs = f"{server}/#/experiments/{experiment.experiment_id}/runs"
    runs += "?workflowType=machine_learning&viewStateShareKey="
    assert out == f"{runs}cells\n"
    assert err == f"its seeds, grouped by cell: {runs}seeds\n"
