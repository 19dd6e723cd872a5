"""Which figures a study's report has: each with its data as a table, and what it leaves out.

Importing this imports matplotlib, which takes a second: `report` does so when it draws.
"""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.pictures.base import Material, Picture, Trained, as_csv
from sweeps.pictures.codes import code_pictures
from sweeps.pictures.diagnostics import diagnostic_pictures
from sweeps.pictures.images import image_pictures
from sweeps.pictures.scores import curves, seeds, spread
from sweeps.wording import shown_metrics

__all__ = ["Material", "Picture", "Trained", "as_csv", "pictures"]


def pictures(material: Material) -> Iterator[Picture]:
    """Yield every figure of the report, one at a time; without a figure where it cannot be."""
    for metric in shown_metrics(material.study, material.results):
        yield seeds(material, metric)
    yield spread(material)
    if isinstance(material, Trained):
        yield from code_pictures(material)
        yield from image_pictures(material)
        yield from diagnostic_pictures(material)
        yield curves(material)
