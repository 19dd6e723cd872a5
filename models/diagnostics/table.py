"""Every diagnostic of a member as a row: its numbers, its version, what it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.diagnostics import denoising, generation, shape
from models.diagnostics.denoising import Defects, denoising_of, filtered, removal, with_defects
from models.diagnostics.generation import Coded, generation_of
from models.diagnostics.likeness import Likeness
from models.diagnostics.reference import reference_of
from models.diagnostics.request import Requested
from models.diagnostics.shape import shape_of

# Raised whenever a definition changes; studies are then measured again from what they kept.
VERSIONS: dict[str, int] = {"code": 1, "denoising": 1, "generation": 1}
NAMES: dict[str, tuple[str, ...]] = {
    "code": shape.NAMES,
    "denoising": denoising.NAMES,
    "generation": generation.NAMES,
}
DIAGNOSTICS = tuple(name for names in NAMES.values() for name in names)
MEDIAN_FILTER = "3x3 median filter"
KEY = 0xD1A6

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Numbers = dict[str, float | None]
Map = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Member:
    """One trained member: its seed, its codes of all images, and what encodes and decodes."""

    seed: int
    coded: Coded
    encode: Map
    decode: Map


@dataclass(frozen=True)
class Examination:
    """What all members of a study are measured with: its images (N, C, H, W), labels, request.

    `rows` are the places of the images that scores are of, None for all. Made once for many
    members; the samples of images, the defects and the reference classifier are the same for all.
    """

    images: Floats
    labels: Rows | None
    label_digest: str
    rows: Rows | None
    requested: Requested

    def groups(self) -> tuple[str, ...]:
        """Return the groups of numbers that are wanted."""
        return tuple(group for group in NAMES if group == "code" or group in self.requested.names)

    def identities(self) -> dict[str, str]:
        """Return for each wanted group the digest of all that its numbers depend on but the run."""
        rows = b"" if self.rows is None else self.rows.tobytes()
        found = {}
        for group in self.groups():
            parts = [group, str(VERSIONS[group])]
            if group != "code":
                settings = getattr(self.requested, group).model_dump(mode="json")
                parts.append(json.dumps(settings, sort_keys=True))
            if group == "generation":
                parts.append(self.label_digest)
            content = "|".join(parts).encode() + rows
            found[group] = hashlib.sha256(content).hexdigest()[:16]
        return found

    def measure(self, group: str, member: Member) -> Numbers:
        """Return one group's numbers of a member."""
        if group == "code":
            coded = member.coded
            code = coded.code if self.rows is None else coded.code[self.rows]
            return shape_of(code, coded.class_units, coded.prior)
        if group == "denoising":
            return denoising_of(member.encode, member.decode, self.defects)
        return generation_of(member.decode, member.coded, self.likeness, member.seed)

    def median_filter(self) -> Numbers:
        """Return what the usual remedy reaches on the same defects."""
        return removal(filtered(self.defects.noisy), self.defects)

    @cached_property
    def defects(self) -> Defects:
        """Return the images with hot pixels."""
        asked = self.requested.denoising
        assert asked is not None  # noqa: S101 - measured where it is asked for
        images = np.asarray(self.images[self._some(asked.images)])
        return with_defects(images, asked.sites, asked.level)

    @cached_property
    def likeness(self) -> Likeness:
        """Return the images that samples are compared with."""
        asked = self.requested.generation
        assert asked is not None  # noqa: S101 - as above
        chosen = self._some(asked.images)
        images = np.asarray(self.images[chosen]).reshape(len(chosen), -1)
        labels = None if self.labels is None else self.labels[chosen]
        return Likeness(images, reference_of(images, labels))

    def _some(self, count: int) -> Rows:
        """Return the places of so many images, drawn once for all members of a study, ascending."""
        places = np.arange(len(self.images)) if self.rows is None else self.rows
        if len(places) <= count:
            return places
        generator = np.random.default_rng(np.random.SeedSequence([KEY, count]))
        return np.sort(generator.choice(places, size=count, replace=False))
