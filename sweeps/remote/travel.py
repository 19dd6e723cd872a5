"""What goes with a job: the study's file, its data where that is named relative to it, digests.

A path that is relative to the study file is the user's own and travels; an absolute one is a place
on the cluster, and is read there. What travels is kept in the study folder, below `submitted/`, by
its digest: there every later call finds it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML

from models.datasets import PATHS
from models.datasets.cache import cache_folder
from models.datasets.folder import FORMATS
from sweeps import __version__
from sweeps.folder.objects import ObjectPath
from sweeps.folder.places import in_store
from sweeps.folder.storage import write_whole
from sweeps.freshness import source_digest
from sweeps.mistakes import Refused
from sweeps.study import check_seeds, check_without_data, load_study, read_yaml
from sweeps.sweep import check_folder
from sweeps.tracking.problems import without_credentials

MOST = 64 * 2**20  # bytes: Ray's dashboard takes 100 MiB, and its head keeps them in memory
LIST = "travel.json"
KEPT = "submitted"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the same content gives the same package, sent once
LETTERS = 16  # of a digest that names a folder


@dataclass(frozen=True)
class Luggage:
    """What was packed: where the study lies in it, and the digest of the list of all."""

    package: Path
    study: str  # its name
    has_share: bool  # it says how many packs it may have at a time
    file: str  # in the package
    digest: str


def pack(path: Path, seeds: int | None, host: str, folder: Path) -> Luggage:
    """Check a study as `run` would, and pack it with its data into a zip file in the folder.

    Raises Refused with every mistake; also where the data is too large to travel.
    """
    raw = read_yaml(path)
    data = raw.get("dataset")
    named = (
        {k: data[k] for k in PATHS if isinstance(data.get(k), str)}
        if isinstance(data, Mapping)
        else {}
    )
    elsewhere = [name for name in named.values() if Path(name).is_absolute()]
    ours = {k: path.parent / name for k, name in named.items() if name not in elsewhere}
    sources = {key: _files(place) for key, place in ours.items()}
    _check_size(path, named, sources, host)
    check_seeds(seeds)
    study = check_without_data(path) if elsewhere else load_study(path)[0]
    contents: dict[str, bytes] = {}
    for key, files in sources.items():
        read = {name: file.read_bytes() for name, file in files.items()}
        place = _digest_of_all(read)[:LETTERS]
        contents |= {f"{place}/{name}": content for name, content in read.items()}
        inside = next(iter(files)) if ours[key].is_file() else ours[key].resolve().name
        raw["dataset"][key] = f"../{place}/{inside}"
    text = _as_yaml(raw)
    file = f"{_sha256(text)[:LETTERS]}/{path.name}"
    contents[file] = text
    listed = {name: _sha256(content) for name, content in sorted(contents.items())}
    about = {"study": study.name, "seedsweep": __version__, "source": source_digest()}
    contents[LIST] = json.dumps({**about, "files": listed}, indent=1).encode()
    package = folder / "package.zip"
    _write_zip(package, contents)
    has_share = study.resources.max_concurrent is not None
    return Luggage(package, study.name, has_share, file, _sha256(contents[LIST]))


def unpack(file: str, digest: str, out: Path) -> tuple[Path, str | None]:
    """Take what came with a job into its study folder; return where the study's file is read.

    That is there; of a folder in a store, in a copy on this machine, since datasets are read from
    disks. Also a sentence where this cluster has other code than the one that submitted. Raises
    Refused where anything is not what was sent.
    """
    listing = _came(LIST)
    if _sha256(listing) != digest:
        raise Refused([_changed(LIST, digest, _sha256(listing))])
    content: dict[str, Any] = json.loads(listing)
    check_folder(out, content["study"])
    read = {}
    for name, expected in content["files"].items():
        _check_name(name)
        read[name] = _came(name)
        if _sha256(read[name]) != expected:
            raise Refused([_changed(name, expected, _sha256(read[name]))])
    in_a_store = isinstance(out, ObjectPath)
    home = cache_folder() / KEPT / digest[:LETTERS] if in_a_store else out
    try:
        for folder in {out, home}:
            for name, data in read.items():
                if not _holds(folder / KEPT / name, data):
                    write_whole(folder / KEPT / name, data)
        os.chdir(home)  # the package goes with the job; what is written beside it would too
    except OSError as failure:
        reason = f"{out}: the study folder cannot be written: {failure.strerror or failure}"
        raise Refused([f"{reason}; choose another with --out"]) from None
    other = None
    if content["source"] != source_digest():
        other = f"the cluster has another seedsweep ({__version__}) than who submitted this"
        other += f" ({content['seedsweep']}); what counts is the cluster's"
    return home / KEPT / file, other


def check_out(out: str) -> None:
    """Refuse a study folder that is not the same place on every node."""
    if "://" in out:
        in_store(out)
    elif not Path(out).is_absolute():
        text = f"--out {out}: expected an absolute path, on storage that all nodes share, or s3://"
        raise Refused([text])


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a job's environment gets; Refused where that would show a password.

    Whoever may list a cluster's jobs can read it.
    """
    found = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
    uri = environment.get("MLFLOW_TRACKING_URI")
    if not uri:
        return found
    if without_credentials(uri) != uri:
        text = (
            "MLFLOW_TRACKING_URI: holds a password or a query, and all who list jobs could read it"
        )
        fix = "leave them out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in"
        raise Refused([f"{text}; {fix} the environment that the cluster's head is started in"])
    return {**found, "MLFLOW_TRACKING_URI": uri}


def _files(place: Path) -> dict[str, Path]:
    """Return the files of a path by the names that they travel under."""
    if not place.is_dir():
        return {place.name: place}
    top = place.resolve().name
    found = sorted(file for file in place.rglob("*") if file.suffix.lower() in FORMATS)
    inside = [(file.relative_to(place), file) for file in found if file.is_file()]
    shown = [
        (name, file) for name, file in inside if not any(p.startswith(".") for p in name.parts)
    ]
    return {f"{top}/{name.as_posix()}": file for name, file in shown}


def _check_size(
    path: Path, named: Mapping[str, str], sources: Mapping[str, Mapping[str, Path]], host: str
) -> None:
    sizes = {key: sum(f.stat().st_size for f in files.values()) for key, files in sources.items()}
    if sum(sizes.values()) <= MOST:
        return
    key = max(sizes, key=lambda one: sizes[one])
    place = Path(named[key])
    there = f"/shared/{place.name}"
    command = shlex.join(["rsync", "-a", str(place), f"{host}:{there}"])
    what = f"{path.name}: dataset.{key}: {place} has {sizes[key] / 2**20:,.0f} MiB"
    fix = f"copy it to storage that all nodes share: {command}"
    write = f"and write in the file where it is there: {key}: {there}"
    raise Refused([f"{what}, and {MOST / 2**20:.0f} MiB travel with a job; {fix}; {write}"])


def _check_name(name: str) -> None:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise Refused([f"{name}: a name that leads out of the study folder"])


def _came(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as failure:
        text = f"{name}: did not come with the job: {failure.strerror}"
        raise Refused([f"{text}; submit again"]) from None


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def _changed(name: str, expected: str, got: str) -> str:
    text = f"{name}: changed on its way to the cluster: expected the SHA-256 {expected[:16]}..."
    return f"{text}, got {got[:16]}...; nothing was trained; submit again"


def _as_yaml(raw: Mapping[str, Any]) -> bytes:
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(dict(raw), text)
    return text.getvalue().encode()


def _write_zip(path: Path, contents: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(contents.items()):
            archive.writestr(zipfile.ZipInfo(name, EARLIEST), content)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of_all(contents: Mapping[str, bytes]) -> str:
    lines = [f"{_sha256(content)} {name}\n" for name, content in sorted(contents.items())]
    return _sha256("".join(lines).encode())
