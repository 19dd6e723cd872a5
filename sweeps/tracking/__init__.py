"""Step 9: MLflow as a view of the records, which can be rebuilt from them at any time.

Each call says what every run should show, reads what the store shows, and writes the difference:
study run > cell runs > seed runs. So a second call writes nothing, and a call that was cut short is
completed by the next one. `Follower` does so in a process of its own while a sweep runs: the driver
never waits for MLflow, and never imports it, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.tracking.follower import Follower
from sweeps.tracking.outline import outline_of
from sweeps.tracking.place import Tracked, tracking_uri

if TYPE_CHECKING:  # seconds of imports
    from models.datasets import Dataset
    from sweeps.plan import Run
    from sweeps.results import Results
    from sweeps.study import Study

__all__ = ["Follower", "Tracked", "track", "tracking_uri"]


def track(
    study: Study,
    dataset: Dataset,
    runs: Sequence[Run],
    folder: Path,
    results: Results,
    table: str,
    *,
    uri: str | None = None,
    running: bool = False,
) -> Tracked:
    """Bring the study's experiment in line with its results, in this process.

    `table` describes the study run; `running` where another driver still works on the folder.
    Raises nothing: whatever MLflow does, the records are written and the view can wait.
    """
    from sweeps.tracking.whole import bring_in_line  # noqa: PLC0415 - mlflow takes seconds

    outline = outline_of(study, dataset, runs, folder)
    records, summary = results.runs.to_pylist(), results.summary.to_pylist()
    return bring_in_line(outline, uri or tracking_uri(), records, summary, table, running=running)
