"""Views of the runs table that the UI lists under *Views*: an experiment's tag each.

`cells` shows the statistics of each cell, over all its seeds; `seeds` groups the seeds by cell with
the UI's own averages. The UI reads the state of its table from the tag, as it would write it.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # seconds of imports
    from sweeps.study import Study

SAVED_VIEW = "mlflow.sharedViewState."
MOST_TEXT = 5000  # characters that MLflow holds in an experiment's tag
OURS = 1767225600000  # when our views were saved; a reader's "Override saved view" writes the time
NAME, NAME_WIDTH, NUMBER_WIDTH = "attributes.`Run Name`", 360, 120  # pixels
STATISTICS = ("mean", "ci_low", "ci_high", "variance", "worst_quarter", "low_basin_share")


def saved_views(study: Study) -> dict[str, str]:
    """Return each view's content by its name, which is its key in a link too."""
    cells = [f"metrics.`{study.metric}_{name}`" for name in STATISTICS]
    cells += [f"metrics.`n_{name}`" for name in ("scored", "planned")]
    seeds = [f"metrics.`{name}`" for name in (study.metric, "reconstruction", "seconds")]
    group = {"mode": "tag", "groupByData": "cell"}
    closed = {f"tag.cell.{cell.label}": False for cell in study.cells}
    grouped = {
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [group]},
        "groupsExpanded": closed,
    }
    return {
        "cells": _saved("cells", _table("cell", cells)),
        "seeds": _saved("seeds", _table("seed", [*seeds, "tags.`status`"]) | grouped),
    }


def changed_by_reader(content: str | None) -> bool:
    """Tell a view that somebody has saved anew in the UI, or written otherwise."""
    if content is None:
        return False
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return bool(json.loads(content)["updatedAt"] != OURS)
    return True


def _table(level: str, columns: list[str]) -> dict[str, Any]:
    """Return the table of one level's runs that the plan asks for, best first."""
    widths = {NAME: NAME_WIDTH, **dict.fromkeys(columns, NUMBER_WIDTH)}
    return {
        "searchFilter": (
            f"tags.`seedsweep.level` = '{level}' and tags.`seedsweep.current` = 'true'"
        ),
        "orderByKey": columns[0],
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": list(widths),  # else the widths are not read
        "columnWidths": widths,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
    }


def _saved(name: str, state: dict[str, Any]) -> str:
    """Return a view's tag; where the labels do not fit, groups are open."""
    times = {"createdAt": OURS, "updatedAt": OURS}
    content = json.dumps({"name": name, **times, "state": json.dumps(state)})
    if len(content) > MOST_TEXT:
        return _saved(name, state | {"groupsExpanded": {}})
    return content
