"""What a node must have in the driver's version: then a cluster trains as one machine would."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata

COMPARED = ("ray", "torch", "seedsweep")


def versions() -> dict[str, str]:
    """Return the versions of this process, by name; without importing what takes seconds.

    Without what follows `+`: a driver with torch for CPUs may have workers with torch for CUDA.
    """
    found = {"python": platform.python_version()}
    for name in COMPARED:
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:  # run from its sources
            found[name] = "none"
    return found


def differences(drivers: Mapping[str, str]) -> str | None:
    """Say which versions here are not the driver's; None where all are."""
    here = versions()
    wrong = [name for name in drivers if here.get(name) != drivers[name]]
    if not wrong:
        return None
    has = ", ".join(f"{name} {here.get(name, 'none')}" for name in wrong)
    expected = ", ".join(f"{name} {drivers[name]}" for name in wrong)
    return f"has {has}, the driver {expected}; install the same versions there"
