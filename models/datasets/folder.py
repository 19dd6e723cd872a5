"""Images in a folder, one file each; a sub-folder is a class."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.datasets.base import BadData, rows_at_a_time
from models.datasets.classes import Labels
from models.datasets.source import BYTE, MOST_SIDE, DataFile, Source, by, reading

FORMATS = {
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".pgm": "PPM",
    ".png": "PNG",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
SIXTEEN_BITS = 65535.0


@final
class Folder(DataFile):
    """A folder with a sub-folder of image files for each class, or with image files alone.

    Names are sorted. Pixels are between 0 and 1: bytes are divided by 255, 16-bit greys by 65535;
    only files of floats or 32-bit integers (TIFF) are taken as they are. `mode`: `grey` or `rgb`.
    """

    form: ClassVar[str] = "folder"
    mode: Literal["grey", "rgb"] = "grey"

    def source(self) -> Source:
        """Return what the file holds."""
        path = Path(self.path)
        with reading(path, "a folder of images"):
            files, labels = _files(path)
            facts = hashlib.sha256()
            for file in files:
                stat = file.stat()
                text = f"{file}|{stat.st_size}|{stat.st_mtime_ns}\n"
                facts.update(text.encode("utf-8", "surrogateescape"))

        def blocks() -> Iterator[NDArray[Any]]:
            return _blocks(files, self.mode)

        what = f"{len(files):,} images of the folder {path.name}"
        names = tuple(_printable(file.relative_to(path).as_posix()) for file in files)
        digest = facts.hexdigest()
        return Source(path, what, len(files), blocks, digest, labels, names=names)


def _files(path: Path) -> tuple[list[Path], Labels | None]:
    """Return the image files in order, with their classes where there are sub-folders."""
    inside = sorted(place for place in path.iterdir() if not place.name.startswith("."))
    alone = [place for place in inside if _is_image(place)]
    folders = [place for place in inside if place.is_dir()]
    classes = {place.name: _images(place) for place in folders}
    if alone and folders:
        text = f"{path}: holds image files ({alone[0].name}) beside folders ({folders[0].name})"
        raise BadData("path", f"{text}; a folder a class, or images alone")
    if not folders:
        if not alone:
            text = f"{path}: no image files and no folders of them"
            raise BadData("path", f"{text}; known endings: {', '.join(FORMATS)}")
        return alone, None
    for name, found in classes.items():
        if not found:
            raise BadData("path", f"{path}: the folder of class '{name}' holds no image files")
    names = tuple(_printable(name) for name in classes)
    codes = np.repeat(np.arange(len(names)), [len(found) for found in classes.values()])
    files = [file for found in classes.values() for file in found]
    return files, Labels(codes, names, "path", str(path))


def _images(folder: Path) -> list[Path]:
    return sorted(place for place in folder.iterdir() if _is_image(place))


def _is_image(place: Path) -> bool:
    """Judge by the ending, and leave what is hidden; refuse a link that leads nowhere."""
    if place.suffix.lower() not in FORMATS or place.name.startswith("."):
        return False
    if place.is_symlink() and not place.exists():
        raise BadData("path", f"{place}: a link that leads nowhere; remove it")
    return place.is_file()


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")


def _blocks(files: Sequence[Path], mode: str) -> Iterator[NDArray[Any]]:
    first = _pixels(files[0], mode)
    step = rows_at_a_time(4 * first.size)
    for start in range(0, len(files), step):
        some = files[start : start + step]
        block = np.empty((len(some), *first.shape), dtype=np.float32)
        for place, file in enumerate(some):
            image = _pixels(file, mode)
            if image.shape != first.shape:
                text = f"{file} has {by(image.shape[1:])} pixels, where {files[0].name} has"
                fix = "give all one size"
                raise BadData("path", f"{text} {by(first.shape[1:])} (height x width); {fix}")
            block[place] = image
        yield block


def _pixels(file: Path, mode: str) -> NDArray[np.float32]:
    """Return one image, (1 or 3, H, W)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters of them is checked here
            return _decoded(file, mode)
    except BadData:
        raise
    except Image.DecompressionBombError:
        raise _too_large(file) from None
    except Exception as failure:  # noqa: BLE001 - decoders of damaged files raise anything
        reason = str(failure).partition("\n")[0].replace(repr(str(file)), "the file")
        text = f"{file}: cannot be read as an image: {reason or type(failure).__name__}"
        raise BadData("path", text) from None


def _too_large(file: Path) -> BadData:
    limit = f"at most {MOST_SIDE:,} x {MOST_SIDE:,}; cut or bin them first"
    return BadData("path", f"{file}: too many pixels: {limit}")


def _decoded(file: Path, mode: str) -> NDArray[np.float32]:
    with Image.open(file, formats=sorted(set(FORMATS.values()))) as image:
        if max(image.size) > MOST_SIDE:  # before a single pixel is unpacked
            raise _too_large(file)
        if mode == "rgb":
            colour = np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(BYTE)
            return np.moveaxis(colour, -1, 0)
        if image.mode.startswith("I;16"):
            return np.asarray(image, dtype=np.float32)[None] / np.float32(SIXTEEN_BITS)
        if image.mode in ("I", "F"):
            return np.asarray(image, dtype=np.float32)[None]
        return np.asarray(image.convert("L"), dtype=np.float32)[None] / np.float32(BYTE)
