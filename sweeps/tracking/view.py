"""MLflow as a place: find a study's runs there, and write what differs from what is wanted."""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from sweeps.tracking.outline import Input, Outline, as_text
from sweeps.tracking.saved import SAVED_VIEW, changed_by_reader
from sweeps.tracking.wanted import MOST_TAG_TEXT, Point, Wanted, finite

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads it when it is imported

import mlflow.store.db.utils as database
from mlflow import MlflowClient, entities

FILES, FILE_DIGEST = "seedsweep.files", 16  # one tag: a run's page lists them all
OLD_FILES = "seedsweep.sha256."  # what the first version wrote, a tag a file
PAGE = 200  # runs in one answer: a thousand take a server longer than the timeout below
# Else the UI opens the experiment among those of language models.
KIND = {"mlflow.experimentKind": "custom_model_development"}
# MLflow's limits: a batch holds 1000 things, of params and tags 100 each; characters of a value.
NUMBERS, TEXTS = 800, 100
MOST_PARAM_TEXT, MOST_DIGEST = 6000, 36
DATA_SOURCE = "seedsweep"  # the type of our datasets' sources, by which they are told from others
# The tag by which a level's runs are found again.
OWN_ID = {"study": "seedsweep.study", "cell": "seedsweep.cell_id", "seed": "seedsweep.run_id"}
# MLflow's own defaults wait for minutes (7 retries, 120 s each) and print links to stdout.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
TALKATIVE = ("mlflow", "alembic", "sqlalchemy", "urllib3")

Key = tuple[str, str]  # level, own id


class View:
    """One study's experiment: what it shows, and how its runs become what is wanted."""

    def __init__(self, uri: str, outline: Outline) -> None:
        """Find, restore or create the experiment, and read its runs."""
        _open_anew(uri)
        self.client, self.study = MlflowClient(uri, uri), outline.study
        self.data, self.ours = _input(outline.data), (*outline.outcomes, "n_", "seconds")
        self.experiment = self._experiment()
        self.created = False
        self.shown: dict[Key, entities.Run] = {}
        self.written: dict[Key, str] = {}  # MLflow's ids of the runs that were put
        self.doubles: list[entities.Run] = []
        self.others: list[entities.Run] = []  # ours, but of no level that we know
        for run in sorted(self._runs(), key=_emptiest_last):
            level = run.data.tags.get("seedsweep.level", "")
            own_id = run.data.tags.get(OWN_ID.get(level, ""), "")
            if not own_id:
                self.others.append(run)
            elif self.shown.setdefault((level, own_id), run) is not run:
                self.doubles.append(run)

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(self.study)
        if found is None:
            return self.client.create_experiment(self.study, tags=KIND)
        if found.lifecycle_stage == entities.LifecycleStage.DELETED:
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _runs(self) -> Iterator[entities.Run]:
        ours, token = f"tags.`seedsweep.study` = '{self.study}'", None
        while True:
            page = self.client.search_runs([self.experiment], ours, 1, PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def delete_doubles(self) -> None:
        """Delete all but one of the runs that stand for the same.

        Two drivers made them at the same time, or a server did carry out what had timed out here.
        """
        while self.doubles:
            self.client.delete_run(self.doubles[-1].info.run_id)
            self.doubles.pop()

    def find(self, level: str, own_id: str) -> str | None:
        """Return MLflow's id of a run, None where there is none."""
        key = level, own_id
        run = self.shown.get(key)
        return str(run.info.run_id) if run else self.written.get(key)

    def put(
        self,
        wanted: Wanted,
        curve: Callable[[], list[Point]] | None = None,
        *,
        partly: bool = False,
    ) -> str:
        """Create the run or write what differs; return MLflow's id of it.

        `partly` where not all is known yet: then numbers that are not wanted stay.
        """
        run = self._known((wanted.level, wanted.own_id))
        own = self.data if wanted.data is None else _input(wanted.data)
        metrics = {name: float(value) for name, value in wanted.metrics.items() if finite(value)}
        if run is not None and not partly and self._must_go(run, metrics, own.dataset.digest):
            self.client.delete_run(run.info.run_id)
            run = None
        tags = self._tags(wanted)
        if run is None:
            named = tags | {"mlflow.user": _user()}
            run = self.client.create_run(self.experiment, wanted.start, named, wanted.name)
            self.created = True
        points = [
            entities.Metric(name, value, _moment(run, wanted), 0)
            for name, value in metrics.items()
            if run.data.metrics.get(name) != value
        ]
        # Once: the same run trained again has the same curve.
        if curve and not any(name.startswith("curve/") for name in run.data.metrics):
            end = wanted.end or 0
            points += [entities.Metric(name, value, end, step) for name, value, step in curve()]
        params = [
            entities.Param(name, value[:MOST_PARAM_TEXT])
            for name, value in wanted.params.items()
            if name not in run.data.params  # MLflow never changes one
        ]
        changed = [entities.RunTag(*item) for item in tags.items() - run.data.tags.items()]
        self._log(run.info.run_id, points, params, changed)
        if not _data(run):
            self.client.log_inputs(run.info.run_id, [own])
        self._settle(run, wanted, run.data.tags.keys() - tags)
        self.written[wanted.level, wanted.own_id] = run.info.run_id
        return str(run.info.run_id)

    def _known(self, key: Key) -> entities.Run | None:
        """Return a run as the store shows it; LookupError where it was there and is gone."""
        if key in self.shown or key not in self.written:
            return self.shown.pop(key, None)
        run = self.client.get_run(self.written[key])
        if run.info.lifecycle_stage == entities.LifecycleStage.DELETED:
            raise LookupError(run.info.run_id)
        return run

    def _must_go(self, run: entities.Run, metrics: Mapping[str, float], digest: str) -> bool:
        """Tell a run with a number or an input that no longer holds: neither can be taken back."""
        gone = run.data.metrics.keys() - metrics
        return any(name.startswith(self.ours) for name in gone) or any(
            data.digest != digest for data in _data(run)
        )

    def _tags(self, wanted: Wanted) -> dict[str, str]:
        tags = wanted.tags | {
            "seedsweep.study": self.study,
            "seedsweep.level": wanted.level,
            OWN_ID[wanted.level]: wanted.own_id,
            "seedsweep.current": "true",
            "mlflow.source.name": "seedsweep",
        }
        # Some stores keep no empty values: those would differ for ever.
        texts = {name: as_text(value) for name, value in tags.items() if value not in (None, "")}
        return {name: text[:MOST_TAG_TEXT] for name, text in texts.items()}

    def _log(
        self,
        run_id: str,
        metrics: list[entities.Metric],
        params: list[entities.Param],
        tags: list[entities.RunTag],
    ) -> None:
        while metrics or params or tags:
            self.client.log_batch(run_id, metrics[:NUMBERS], params[:TEXTS], tags[:TEXTS])
            metrics, params, tags = metrics[NUMBERS:], params[TEXTS:], tags[TEXTS:]

    def _settle(self, run: entities.Run, wanted: Wanted, other_tags: Iterable[str]) -> None:
        """Take back what no longer holds, rename, and end the run, or begin it again."""
        for name in other_tags:
            if name in ("error", "log", "cell", "cell_id") or name.startswith(("axis.", OLD_FILES)):
                self.client.delete_tag(run.info.run_id, name)
        if run.info.run_name != wanted.name:
            self.client.update_run(run.info.run_id, name=wanted.name)
        if wanted.status == "RUNNING":
            if run.info.status != wanted.status:
                self.client.update_run(run.info.run_id, wanted.status)
        elif run.info.status != wanted.status or wanted.end not in (None, run.info.end_time):
            self.client.set_terminated(run.info.run_id, wanted.status, wanted.end)

    def attach(self, run_id: str, files: Mapping[str, Path]) -> None:
        """Store files with a run at their places, again where the content is another."""
        known = _known_files(self.client.get_run(run_id).data.tags.get(FILES, ""))
        for place, path in files.items():
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()[:FILE_DIGEST]
            if known.get(place) != digest:
                with tempfile.TemporaryDirectory() as folder:  # the study's may be no local one
                    copy = Path(folder) / path.name
                    copy.write_bytes(data)
                    self.client.log_artifact(run_id, str(copy), place.rpartition("/")[0] or None)
                known[place] = digest
                self.client.set_tag(run_id, FILES, json.dumps(known))

    def save(self, views: Mapping[str, str]) -> None:
        """Put views by their names into the UI's list, but for those that a reader has changed."""
        known = self.client.get_experiment(self.experiment).tags
        for name, content in views.items():
            tag = f"{SAVED_VIEW}{name}"
            if known.get(tag) != content and not changed_by_reader(known.get(tag)):
                self.client.set_experiment_tag(self.experiment, tag, content)

    def retire_the_rest(self) -> None:
        """Mark the runs that the plan no longer asks for; end those that were left running."""
        for run in [*self.shown.values(), *self.others]:
            if run.data.tags.get("seedsweep.current") != "false":
                self.client.set_tag(run.info.run_id, "seedsweep.current", "false")
            if run.info.status == "RUNNING":
                self.client.set_terminated(run.info.run_id, "KILLED")


def _open_anew(uri: str) -> None:
    """Close MLflow's connections to a file, which may be another one by now.

    It keeps them for the life of a process, and would write to a file that was removed.
    """
    if uri.startswith("sqlite"):
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415
        from mlflow.tracking._tracking_service.registry import (  # noqa: PLC0415 - as the one above
            TrackingStoreRegistry,
        )

        for engine in SqlAlchemyStore._engine_map.values():  # noqa: SLF001 - there is no other way
            engine.dispose()
        SqlAlchemyStore._engine_map.clear()  # noqa: SLF001
        TrackingStoreRegistry._get_store_with_resolved_uri.cache_clear()  # noqa: SLF001


def _input(data: Input) -> entities.DatasetInput:
    """Return the dataset of every run as MLflow holds it."""
    digest = data.digest[:MOST_DIGEST]
    content = entities.Dataset(data.name, digest, DATA_SOURCE, data.source, profile=data.profile)
    return entities.DatasetInput(content, [entities.InputTag("mlflow.data.context", "training")])


def _emptiest_last(run: entities.Run) -> tuple[int, int, int, str]:
    """Order runs so that of those which stand for the same the one with content comes first."""
    data = run.data
    return -len(data.metrics), -len(data.params), -len(data.tags), run.info.run_id


def _known_files(text: str) -> dict[str, str]:
    """Read the digests of the files that a run has; a tag that somebody has spoiled knows none."""
    with suppress(ValueError):
        known = json.loads(text)
        if isinstance(known, dict):
            return known
    return {}


def _data(run: entities.Run) -> list[entities.Dataset]:
    """Return the datasets that we gave a run."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return [one.dataset for one in inputs if one.dataset.source_type == DATA_SOURCE]


def _moment(run: entities.Run, wanted: Wanted) -> int:
    """Return the time of a run's numbers: its own at first, then now: MLflow shows the latest."""
    if not run.data.metrics and wanted.end:
        return wanted.end
    return max(round(time.time() * 1000), (run.info.end_time or 0) + 1, (wanted.end or 0) + 1)


def experiment_of(uri: str, study: str) -> str | None:
    """Return MLflow's id of a study's experiment, None where there is none."""
    found = MlflowClient(uri, uri).get_experiment_by_name(study)
    return str(found.experiment_id) if found else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without a name
        return "unknown"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow off the terminal and its retries short, where the user has not set them."""
    ours = {name: value for name, value in SETTINGS.items() if name not in os.environ}
    levels = {name: logging.getLogger(name).level for name in TALKATIVE}
    attempts, database.MAX_RETRY_COUNT = database.MAX_RETRY_COUNT, 1  # else 100 s, and no setting
    os.environ.update(ours)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        database.MAX_RETRY_COUNT = attempts
        for name in ours:
            os.environ.pop(name, None)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
