"""Which device a pack trains on where Ray has given it GPUs, or a part of one."""

from __future__ import annotations

import os
import socket

import torch

VARIABLE = "SEEDSWEEP_DEVICE"  # cpu: packs are placed as on GPUs, and train on the CPU
DEVICES = ("cpu", "cuda")


class NoDeviceError(RuntimeError):
    """What Ray has given cannot be used here."""


def device_of(gpus: float) -> str:
    """Return where a pack trains that was given so many GPUs on this machine.

    Fractions are Ray's accounting only, so a process that has a part of a GPU is kept to that part
    of its memory. Raises NoDeviceError.
    """
    wrong = missing(gpus)
    if wrong:
        msg = f"{socket.gethostname()} {wrong}"
        raise NoDeviceError(msg)
    if not gpus or os.environ.get(VARIABLE) == "cpu":
        return "cpu"
    if gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus)
    return "cuda"


def missing(gpus: float) -> str | None:
    """Say why a pack that was given so many GPUs could not train here; None where it can."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen and chosen not in DEVICES:
        return f"has {VARIABLE}={chosen[:20]}; expected {' or '.join(DEVICES)}"
    if not gpus or chosen == "cpu" or torch.cuda.is_available():
        return None
    return (
        f"has a GPU as Ray says, and its torch {torch.__version__} sees none: install a build of "
        f"torch with CUDA there, or try out the placement alone with {VARIABLE}=cpu"
    )
