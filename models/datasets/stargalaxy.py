"""Survey cut-outs of stars and galaxies, simulated: where the method comes from."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from models.datasets.base import BadData
from models.datasets.detector import SKY_NOISE, defects, expose, flux_at
from models.datasets.photometry import measure, mended
from models.datasets.profiles import FLATTEST, STEEPEST, Sources, render
from models.datasets.simulated import FEWEST_OF_A_CLASS, Drawn, Floats, Range, Simulated, within
from models.datasets.steps import Asinh, Centre, Clip, Flux, Standardise, Steps
from models.settings import did_you_mean, mistake

VERSION = 1  # raised whenever the same settings give other pixels

# So far out are all but 18 of 3,043 defective pixels of the default objects, and 7 stars' cores.
# Without standardising, a whole image weighs less than one unit's KL: every VAE collapses.
CANONICAL = (Clip(sigma=100.0), Centre(), Flux(norm="l2"), Asinh(), Standardise())
WAYS = {"canonical": CANONICAL, "raw": ()}
FLATTEST_DISC = 0.25  # smallest axis ratio
COLOUR, COLOUR_SPREAD, BAND_SPREAD = 0.8, 0.4, 0.1  # magnitudes: usual, of objects, of a band
NEAREST, FARTHEST = 0.25, 0.6  # where neighbours are, in cut-outs from the middle


def _as_steps(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in WAYS:
        text = f"unknown way '{value}'{did_you_mean(value, WAYS)}, or a list of steps"
        raise mistake(text)
    return WAYS[value]


@final
class StarGalaxy(Simulated):
    """Simulated survey cut-outs of stars and galaxies, with neighbours and defects.

    Stars are Moffat profiles, galaxies Sersic profiles (index 0.8 to 4) of the same point spread.
    Fluxes are drawn from one distribution for both classes, even in their logarithm: `snr` is what
    a star in usual seeing would have. `neighbours`, `hot_pixels`, `cosmic_rays` are mean numbers in
    a cut-out (defects: in each band of it); `colour_signal` is how far the classes' mean colours
    are apart, in standard deviations; `offset` is how far centres are off at most, in pixels.
    Pixels are in units of the sky's noise. `preprocess` is `canonical` (defects clipped, centred,
    one norm, asinh, standardised), `raw`, or a list of steps.
    """

    form: ClassVar[str] = "stargalaxy"
    version: ClassVar[int] = VERSION
    class_names: ClassVar[tuple[str, ...]] = ("star", "galaxy")
    scalar: ClassVar[str] = "concentration"
    covariates: ClassVar[tuple[str, ...]] = (
        *("flux", "radius", "ellipticity", "concentration", "colour"),
        *("flux_true", "radius_true", "ellipticity_true", "colour_true"),
        *("index", "seeing", "snr", "neighbours", "defects"),
    )

    name: Literal["stargalaxy"] = "stargalaxy"
    objects: int = Field(default=4000, ge=4, le=1_000_000)
    size: Annotated[int, Field(ge=24, le=64)] = 24
    bands: int = Field(default=1, ge=1, le=5)
    galaxies: float = Field(default=0.5, gt=0, lt=1)
    seeing: Annotated[Range, within(2, 8)] = (2.5, 4.0)
    radius: Annotated[Range, within(0.5, 8)] = (1.0, 4.0)
    snr: Annotated[Range, within(5, 1000)] = (20.0, 200.0)
    neighbours: float = Field(default=0.1, ge=0, le=5)
    hot_pixels: float = Field(default=0.5, ge=0, le=50)
    cosmic_rays: float = Field(default=0.1, ge=0, le=50)
    colour_signal: float = Field(default=0.5, ge=0, le=10)
    offset: float = Field(default=0.5, ge=0, le=3)
    preprocess: Annotated[Steps, BeforeValidator(_as_steps)] = CANONICAL

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (bands, size, size)."""
        return self.bands, self.size, self.size

    @property
    def description(self) -> str:
        """Return a sentence that names the parameters."""
        what = f"{self.objects:,} simulated cut-outs, {100 * self.galaxies:g} % galaxies"
        seen = f"S/N {_words(self.snr)}, seeing {_words(self.seeing)}, radii {_words(self.radius)}"
        rates = f"{self.neighbours:g} neighbours, {self.hot_pixels:g} hot pixels"
        rates = f"{rates} and {self.cosmic_rays:g} cosmic rays a cut-out"
        colour = f", colours {self.colour_signal:g} sd apart" if self.bands > 1 else ""
        return f"{what}, {seen} pixels, {rates}{colour}, offset {self.offset:g}, seed {self.seed}"

    def draw(self) -> Drawn:
        """Return raw cut-outs in units of the sky's noise, with their mask and covariates.

        True covariates are those with `_true` and from `index` on; 0 is a star's radius. The others
        are measured with masked pixels mended. Lengths are in pixels, colours in magnitudes.
        """
        labels = self._labels()
        seeing = self.stream("seeing").uniform(*self.seeing, self.objects)
        main = self._sources(labels, seeing, self._middles(), "")
        colour, fluxes = self._fluxes(labels, "")
        profiles = render(main, self.size)
        light = fluxes[:, :, None, None] * profiles[:, None]  # (N, bands, size, size), electrons
        snr = np.sqrt((_snr(fluxes, profiles) ** 2).sum(1))
        neighbours = self._add_neighbours(light, seeing)
        pixels = expose(light, self.stream("sky"))
        del light  # by now the largest array, and there are several
        rates = self.hot_pixels, self.cosmic_rays
        streams = self.stream("hot pixels"), self.stream("cosmic rays")
        pixels, mask = defects(pixels, *rates, *streams)
        pixels /= SKY_NOISE
        images = pixels.astype(np.float32)
        del pixels
        galaxy, flat = labels == 1, main.ratio**2
        true = {
            "flux_true": fluxes.mean(1) / SKY_NOISE,
            "radius_true": main.radius,
            "ellipticity_true": np.where(galaxy, (1 - flat) / (1 + flat), 0.0),
            "index": np.where(galaxy, main.index, 0.0),
            "seeing": seeing,
            "snr": snr,
            "neighbours": neighbours,
            "defects": mask.sum((1, 2, 3)).astype(np.float64),
        }
        if self.bands > 1:
            true["colour_true"] = colour
        found = true | self._measured(images, mask)
        covariates = {name: found[name] for name in self.covariates if name in found}
        return Drawn(images, labels, covariates, mask)

    def _labels(self) -> NDArray[np.int64]:
        count = round(self.galaxies * self.objects)
        if min(count, self.objects - count) < FEWEST_OF_A_CLASS:
            text = f"{self.galaxies:g} of {self.objects:,} objects are {count} galaxies"
            raise BadData("galaxies", f"{text}; each class needs at least {FEWEST_OF_A_CLASS}")
        return self.stream("classes").permutation(np.arange(self.objects) < count).astype(np.int64)

    def _middles(self) -> Floats:
        """Return the centres (2, N): the cut-outs' middles, and a little off."""
        off = self.stream("centres").uniform(-self.offset, self.offset, (2, self.objects))
        return off + (self.size - 1) / 2

    def _sources(
        self, labels: NDArray[np.int64], seeing: Floats, places: Floats, whose: str
    ) -> Sources:
        random, count = self.stream(f"{whose}shapes"), len(labels)
        low, high = np.log(self.radius)
        index = random.uniform(FLATTEST, STEEPEST, count)
        radius: Floats = np.exp(random.uniform(low, high, count)) * labels  # 0 is a point
        ratio = random.uniform(FLATTEST_DISC, 1, count)
        angle = random.uniform(0, np.pi, count)
        return Sources(places[1], places[0], seeing, index, radius, ratio, angle)

    def _fluxes(self, labels: NDArray[np.int64], whose: str) -> tuple[Floats, Floats]:
        """Return first minus last band in magnitudes (N,), and electrons in each band (N, bands).

        The mean over bands has the same distribution in both classes.
        """
        middle = render(_star(float(np.mean(self.seeing)), self.size), self.size)
        low, high = (np.log(flux_at(snr, middle[0])) for snr in self.snr)
        total = np.exp(self.stream(f"{whose}fluxes").uniform(low, high, len(labels)))
        random = self.stream(f"{whose}colours")
        apart = self.colour_signal * (labels - 0.5)
        slope = COLOUR + COLOUR_SPREAD * (apart + random.standard_normal(len(labels)))
        own = BAND_SPREAD * random.standard_normal((len(labels), self.bands))
        along = np.linspace(0, 1, self.bands) if self.bands > 1 else np.zeros(1)
        magnitude = own - slope[:, None] * along
        share = 10 ** (-0.4 * magnitude)
        fluxes = total[:, None] * share / share.mean(1, keepdims=True)
        return magnitude[:, 0] - magnitude[:, -1], fluxes

    def _add_neighbours(self, light: Floats, seeing: Floats) -> Floats:
        """Add other objects, of both classes by their shares; return how many each cut-out has."""
        random = self.stream("neighbours")
        counts = random.poisson(self.neighbours, self.objects)
        owner = np.repeat(np.arange(self.objects), counts)
        labels = (random.random(len(owner)) < self.galaxies).astype(np.int64)
        squares = random.uniform(NEAREST**2, FARTHEST**2, len(owner))
        around = random.uniform(0, 2 * np.pi, len(owner))
        away = self.size * np.sqrt(squares) * np.array([np.sin(around), np.cos(around)])
        others = self._sources(labels, seeing[owner], away + (self.size - 1) / 2, "neighbours' ")
        _, fluxes = self._fluxes(labels, "neighbours' ")
        np.add.at(light, owner, fluxes[:, :, None, None] * render(others, self.size)[:, None])
        return counts.astype(np.float64)

    def _measured(self, images: NDArray[np.float32], mask: NDArray[np.bool_]) -> dict[str, Floats]:
        """Return what is measured on the mean over bands, and the colour where there are several.

        A flux below the noise of a pixel is taken as that, so that its magnitude is a number.
        """
        usual = float(np.mean(self.seeing))
        together = np.zeros((self.objects, self.size, self.size))
        fluxes = []
        for band in range(self.bands):
            image = mended(images[:, band].astype(np.float64), mask[:, band])
            fluxes.append(np.maximum(measure(image, usual, 1).flux, 1))
            together += image / self.bands
        found = vars(measure(together, usual, 1 / np.sqrt(self.bands)))
        if self.bands > 1:
            found = found | {"colour": -2.5 * np.log10(fluxes[0] / fluxes[-1])}
        return found


def _snr(fluxes: Floats, profiles: Floats) -> Floats:
    """Return the matched filter's signal-to-noise ratio in each band, (N, bands)."""
    squares = np.square(profiles).sum((1, 2))[:, None]
    found: Floats = fluxes / np.sqrt(fluxes + SKY_NOISE**2 / squares)
    return found


def _star(seeing: float, size: int) -> Sources:
    middle, none = np.full(1, (size - 1) / 2), np.zeros(1)
    return Sources(middle, middle, np.full(1, seeing), none + 1, none, none + 1, none)


def _words(values: tuple[float, float]) -> str:
    return f"{values[0]:g} to {values[1]:g}"
