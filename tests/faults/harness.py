"""Random faults at random moments until there were enough; `make faults N=200 SEED=7`.

The seed chooses kinds, moments and surroundings; when a moment comes is the machine's own affair,
so the same seed plays a similar campaign, not the same.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' own helpers, as pytest has them

for _name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):  # the user's own are none of our business
    os.environ.pop(_name, None)

from campaign import MOST, STEPS, Campaign, Deck, Tally, study_of, undisturbed  # noqa: E402
from kinds import BY_SPEC, KINDS, SKIPPED  # noqa: E402
from scene import ROOT, Scene  # noqa: E402
from servers import Server  # noqa: E402
from verify import Lost, Reference  # noqa: E402


def harness(
    wanted: int, seed: int, base: Path, *, steps: int = STEPS, only: Collection[str] = KINDS
) -> Tally:
    """Play campaigns until there were so many faults; raise Lost at the first that goes wrong."""
    print(f"faults: {wanted}, seed {seed}, in {base}", flush=True)
    if not ROOT:
        print("not root: no PID namespace and no tmpfs of our own", flush=True)
    start, dice, tally = time.monotonic(), random.Random(seed), Tally()
    deck = Deck(dice, only)
    (base / "server").mkdir()
    server = Server(base / "server")
    server.start()
    shutil.copy(server.folder / "server.db", server.folder / "empty.db")
    try:
        reference = undisturbed(base / "reference", server, steps)
        print(f"the reference took {time.monotonic() - start:.0f} s", flush=True)
        while tally.faults < wanted:
            _campaign(dice, deck, tally, base, server, reference, wanted, steps)
    finally:
        server.end(signal.SIGKILL)  # it may be stopped
    _print_table(tally, time.monotonic() - start)
    return tally


def _campaign(
    dice: random.Random,
    deck: Deck,
    tally: Tally,
    base: Path,
    server: Server,
    reference: Reference,
    wanted: int,
    steps: int,
) -> None:
    number, before, start = tally.campaigns + 1, tally.faults, time.monotonic()
    name, calls = f"faults-{number}", tally.calls
    place = base / f"campaign-{number:03d}"
    confined, small = (ROOT and dice.random() < share for share in (0.4, 0.6))
    scene = Scene(place, server, dice, confined=confined, small=small)
    (place / "x.yaml").write_text(study_of(name, steps))
    most = max(0, min(MOST, wanted - tally.faults - 1))  # one is in the study itself
    campaign, kept = Campaign(scene, deck, tally, most=most, name=name), place / "kept"
    try:
        campaign.play(reference)
    except BaseException as failure:
        kind = "" if isinstance(failure, Lost) else f"{type(failure).__name__}: "
        where = f"confined {confined}, small {small}"
        print(f"\nFAILED: campaign {number}, {where}: {kind}{failure}", flush=True)
        print("\n".join(["what happened before:", *campaign.events]))
        print(f"its folder: {place}", flush=True)
        scene.close(kept if small else None)
        raise
    scene.close(None)
    shutil.rmtree(place)
    print(
        f"campaign {number}: {tally.faults - before} faults, {tally.calls - calls} calls, "
        f"{time.monotonic() - start:.0f} s: equal to the reference",
        flush=True,
    )


def _print_table(tally: Tally, seconds: float) -> None:
    print()
    for name in (BY_SPEC, *KINDS):
        said = "skipped: not root" if name in SKIPPED else f"{tally.kinds[name]:17d}"
        print(f"{name:32s} {said:>17s}")
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(tally.codes.items()))
    kinds = sum(count > 0 for count in tally.kinds.values())
    print(
        f"\n{tally.faults} faults of {kinds} kinds in {tally.calls} calls of sweeps run "
        f"(exit codes {codes}), {seconds:.0f} s\n"
        f"0 lost, 0 doubled, 0 left RUNNING, {tally.campaigns} campaigns equal to the reference",
        flush=True,
    )


def main() -> int:
    """Play what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", nargs="*", default=tuple(KINDS), choices=KINDS, metavar="KIND")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing of ours is left behind
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    base = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        harness(options.faults, seed, base, steps=options.steps, only=options.only)
    except Lost:
        print(f"again: make faults N={options.faults} SEED={seed}", flush=True)
        return 1
    shutil.rmtree(base)
    return 0


if __name__ == "__main__":
    sys.exit(main())
