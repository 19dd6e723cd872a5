"""Spins on a square lattice across their phase transition: the two-dimensional Ising model."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from models.datasets.base import BadData
from models.datasets.simulated import FEWEST_OF_A_CLASS, Drawn, Floats, Range, Simulated, within
from models.datasets.steps import Sign, Step

VERSION = 1  # raised whenever the same settings give other spins
T_C = 2 / math.log(1 + math.sqrt(2))  # Onsager 1944: coupling and Boltzmann's constant are 1
SWEEPS = 60  # from random spins, at T_c and 64 x 64, energy and |m| are settled after 30 to 60
SITES_AT_ONCE = 2**20  # a part of every chain's random stream, thus of the version

Spins = NDArray[np.int8]


@final
class Ising(Simulated):
    """Ising configurations on a periodic square lattice: disordered above T_c, ordered below.

    Every object is a Markov chain of its own, from random spins through 60 sweeps of Swendsen and
    Wang (1987, Physical Review Letters 58, 86), at a temperature drawn evenly from the range. Spins
    are -1 and 1: flipping all of them is a change of sign, and their mean is the magnetisation.
    `canonical` multiplies each image by the sign of its magnetisation, zero left as it is.
    """

    form: ClassVar[str] = "ising"
    version: ClassVar[int] = VERSION
    class_names: ClassVar[tuple[str, ...]] = ("disordered", "ordered")
    scalar: ClassVar[str] = "abs_m"
    covariates: ClassVar[tuple[str, ...]] = ("temperature", "m", "abs_m", "energy")

    name: Literal["ising"] = "ising"
    size: Annotated[int, Field(ge=8, le=64)] = 16
    temperature: Annotated[Range, within(0.5, 10)] = (1.27, 3.27)
    canonical: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (1, size, size)."""
        return 1, self.size, self.size

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the sign of m first, where it is asked for."""
        return (Sign(), *self.preprocess) if self.canonical else self.preprocess

    @property
    def description(self) -> str:
        """Return a sentence that names the parameters."""
        low, high = self.temperature
        lattice = f"{self.objects:,} Ising configurations of {self.size} x {self.size} spins"
        signs = "times the sign of m" if self.canonical else "of either sign"
        return f"{lattice}, temperature {low:g} to {high:g}, {signs}, seed {self.seed}"

    def draw(self) -> Drawn:
        """Return spins with temperature, m and |m| (per spin, of the image), energy per spin."""
        temperature = self.stream("temperature").uniform(*self.temperature, self.objects)
        labels = (temperature < T_C).astype(np.int64)
        if min(labels.sum(), self.objects - labels.sum()) < FEWEST_OF_A_CLASS:
            text = f"expected a range across T_c = {T_C:.4f}, with objects on both sides"
            raise BadData("temperature", f"{text}; {labels.sum()} of {self.objects} are below")
        spins = equilibrium(temperature, self.size, self.stream("spins"))
        m = spins.mean((1, 2), dtype=np.float64)
        shown = np.abs(m) if self.canonical else m
        values = (temperature, shown, np.abs(m), energy(spins))
        covariates = dict(zip(self.covariates, values, strict=True))
        return Drawn(spins[:, None].astype(np.float32), labels, covariates)


def energy(spins: Spins) -> Floats:
    """Return the energy per spin (R,) of configurations (R, L, L): -1 for each equal pair, else 1.

    From -2, all equal, to 2; random spins have 0.
    """
    pairs = spins * (np.roll(spins, -1, 1) + np.roll(spins, -1, 2))
    found: Floats = -pairs.mean((1, 2), dtype=np.float64)
    return found


def equilibrium(temperature: Floats, size: int, random: np.random.Generator) -> Spins:
    """Return a configuration (R, L, L) of -1 and 1 at each temperature (R,), from random spins."""
    step = max(1, SITES_AT_ONCE // size**2)
    starts = range(0, len(temperature), step)
    parts = [_chains(temperature[start : start + step], size, random) for start in starts]
    return np.concatenate(parts)


def _chains(temperature: Floats, size: int, random: np.random.Generator) -> Spins:
    """Run many chains side by side: their lattices are one graph, which no bond joins."""
    shape = (len(temperature), size, size)
    site = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    neighbours = np.stack([np.roll(site, -1, 2), np.roll(site, -1, 1)], -1)  # (R, L, L, 2)
    chance = (1 - np.exp(-2 / temperature)).astype(np.float32)[:, None, None, None]
    spins = random.integers(0, 2, shape, dtype=np.int8) * 2 - 1
    for _ in range(SWEEPS):
        equal = np.stack([spins == np.roll(spins, -1, 2), spins == np.roll(spins, -1, 1)], -1)
        bonds = equal & (random.random(equal.shape, dtype=np.float32) < chance)
        clusters, cluster = _components(neighbours, bonds)
        flips = random.integers(0, 2, clusters, dtype=np.int8) * 2 - 1
        spins = spins * flips[cluster].reshape(shape)
    return spins


def _components(
    neighbours: NDArray[np.int32], bonds: NDArray[np.bool_]
) -> tuple[int, NDArray[np.int32]]:
    """Return how many clusters the bonds make, and the cluster of each site."""
    ends = neighbours[bonds]
    starts = np.zeros(bonds.size // 2 + 1, dtype=np.int32)
    np.cumsum(bonds.sum(-1).ravel(), out=starts[1:])
    sites = len(starts) - 1
    graph = csr_array((np.ones(len(ends), dtype=np.int8), ends, starts), shape=(sites, sites))
    count, cluster = connected_components(graph, directed=False)
    return int(count), cluster
