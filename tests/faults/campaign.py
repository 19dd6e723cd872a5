"""One study under faults: `sweeps run` again and again until it is complete, then a look at it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from kinds import BY_SPEC, KINDS, SKIPPED, Kind
from scene import KINDS_OF_FILES, Scene
from servers import Server
from studies import as_yaml
from verify import Lost, Reference, compare, reference_of, view_of

from sweeps.study import find_study, read_yaml

STEPS = 3000
MOST = 20  # faults in a campaign; then the study is left to end in peace
PATIENCE = 900.0  # seconds for a call of the command, on a machine that does other things too
LEAVING = 90.0  # seconds for the last process to go after its driver
TRIES = 6  # calls more than there were faults
SIGN = 15.0  # seconds to wait for a sign before a fault comes without it
CODES = {0, 1, 2, 130}


class Deck:
    """Kinds of fault in random order, so that each comes as often as its cards say."""

    def __init__(self, dice: random.Random, only: Collection[str] = KINDS) -> None:
        """Begin without a card; `only` are the kinds to play."""
        self._dice, self._cards, self._back = dice, list[str](), list[str]()
        self._round = [
            name
            for name, kind in KINDS.items()
            if name in only and name not in SKIPPED
            for _ in range(kind.cards)
        ]

    def draw(self, fits: Callable[[Kind], bool]) -> str | None:
        """Take the next card that fits, None where none does; some put back come again."""
        if not any(fits(KINDS[name]) for name in self._round):
            return None
        if self._dice.random() < 0.3:
            self._cards[:0], self._back = self._back, []
        while not (found := [name for name in self._cards if fits(KINDS[name])]):
            self._cards += self._dice.sample(self._round, len(self._round))
        self._cards.remove(found[0])
        return found[0]

    def put_back(self, name: str) -> None:
        """Return a card whose fault could not be done just then."""
        self._back.append(name)


@dataclass
class Tally:
    """What a harness has done so far."""

    kinds: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    calls: int = 0
    campaigns: int = 0

    @property
    def faults(self) -> int:
        """Return how many faults there were."""
        return sum(self.kinds.values())


def study_of(name: str, steps: int) -> str:
    """Return the shipped smoke study, longer, with a cell that diverges."""
    content = read_yaml(find_study("smoke"))
    content["name"] = name
    content["spec"]["training"]["steps"] = steps
    content["cells"].append({"objective": "vae", "training": {"learning_rate": 10}})
    return as_yaml(content)


# What a fault waits for; when the answer changes, its moment comes.
def _nothing(scene: Scene) -> object:
    return scene.mark


def _checkpoint(scene: Scene) -> object:
    with contextlib.suppress(OSError):
        return sorted(
            (e.name, e.stat().st_mtime_ns) for e in os.scandir(scene.study / "checkpoints")
        )
    return None


def _pack(scene: Scene) -> object:
    """Any file that a pack writes, temporary names too."""
    found = []
    for kind in KINDS_OF_FILES[:-1]:
        with contextlib.suppress(OSError):
            found += [path.name for path in (scene.study / kind).iterdir()]
    return sorted(found)


def _writing(scene: Scene) -> object:
    return scene.state().get("state") == "writing"


def _round(scene: Scene) -> object:
    return scene.state().get("round")


# Sign, the longest delay after it in seconds, how often.
MOMENTS = (
    (_nothing, 3.0, 4),
    (_nothing, 12.0, 3),
    (_checkpoint, 1.0, 4),
    (_pack, 0.02, 3),
    (_writing, 3.0, 2),
    (_round, 4.0, 2),
)


class Moment:
    """When the next fault comes."""

    def __init__(self, scene: Scene) -> None:
        """Draw a sign to wait for, and a delay after it."""
        dice = scene.dice
        weights = [weight for *_, weight in MOMENTS]
        self._sign, longest, _ = dice.choices(MOMENTS, weights)[0]
        self._delay, self._scene = dice.uniform(0, longest), scene
        self._before, self._began = self._sign(scene), time.monotonic()
        self.pause = 0.01 if self._sign is _pack else 0.05  # seconds between two looks
        self._seen = self._began if self._sign is _nothing else None

    def come(self) -> bool:
        """Tell whether it is now."""
        now = time.monotonic()
        if self._seen is None and (
            self._sign(self._scene) != self._before or now - self._began > SIGN
        ):
            self._seen = now
        return self._seen is not None and now - self._seen >= self._delay


class Campaign:
    """A study folder from its first call to the look at what came of it."""

    def __init__(self, scene: Scene, deck: Deck, tally: Tally, *, most: int, name: str) -> None:
        """Take the surroundings; nothing runs yet."""
        self.scene, self.deck, self.tally, self.name = scene, deck, tally, name
        self.most, self.left, self.events = most, most, list[str]()
        self.started = time.monotonic()

    def note(self, text: str) -> None:
        """Keep what happened, and when."""
        line = f"{time.monotonic() - self.started:7.2f} s  {text}"
        self.events.append(line)
        with (self.scene.place / "events.log").open("a") as log:
            log.write(f"{line}\n")

    def play(self, reference: Reference) -> None:
        """Run until the study is complete and undisturbed; raise Lost where something is wrong."""
        scene = self.scene
        complete = False
        while not complete:
            if scene.calls > TRIES + self.most - self.left:
                raise Lost([f"not complete after {scene.calls} calls"])
            self._between()
            complete = self._call(disturbed=True)
        scene.calm()
        self._all_gone()
        # Once more in peace: it must find nothing wrong, and say so.
        if not self._call(disturbed=False):
            raise Lost(["the last call, undisturbed, left the study incomplete"])
        self._all_gone()
        compare(reference, reference_of(scene.study), scene.study, self.name)
        view_of(scene.server.address, self.name, scene.study)
        self.tally.kinds[BY_SPEC] += 1
        self.tally.campaigns += 1

    def _between(self) -> None:
        """What happens while no command runs."""
        if self.scene.dice.random() < 0.5 or not self.left:
            self._all_gone()
        while self.left and self.scene.dice.random() < 0.4:
            self._fault(idle=True)

    def _call(self, *, disturbed: bool) -> bool:
        """Run the command to its end, with faults; return whether the study is complete."""
        scene = self.scene
        scene.calls, scene.kills = scene.calls + 1, 0
        log = f"call-{scene.calls:02d}"
        scene.call = scene.begin(log)
        self.note(f"{log} begins{'' if disturbed else ', undisturbed'}")
        moment, end, looked = Moment(scene), time.monotonic() + PATIENCE, 0.0
        while scene.call.poll() is None:
            now = time.monotonic()
            if now > end:
                raise Lost([f"{log} has not ended after {PATIENCE:g} s", self._where(log)])
            if now - looked > 1:
                scene.family.living()
                looked = now
            scene.due()
            if disturbed and self.left and moment.come():
                self._fault(idle=False)
                moment = Moment(scene)
            time.sleep(moment.pause)
        self.tally.calls += 1
        self.tally.codes[scene.call.returncode] += 1
        self.note(f"{log} ends with {scene.call.returncode}")
        self._judge_others()
        return self._judge(log, scene.call.returncode, disturbed=disturbed)

    def _fault(self, *, idle: bool) -> None:
        scene = self.scene

        def fits(kind: Kind) -> bool:
            return (kind.idle or not idle) and (not kind.needs or bool(getattr(scene, kind.needs)))

        name = self.deck.draw(fits)
        if name is None:
            return
        done = KINDS[name].do(scene)
        if done is None:
            self.deck.put_back(name)
            return
        self.left -= 1
        self.tally.kinds[name] += 1
        self.note(f"{name}: {done}  [{scene.state().get('state', 'starting')}]")

    def _judge(self, log: str, code: int, *, disturbed: bool) -> bool:
        """Raise Lost where a call ended as none may; return whether the study is complete."""
        out, err = (
            (self.scene.place / f"{log}.{end}").read_text(errors="replace")
            for end in ("out", "err")
        )
        if "Traceback" in err:
            raise Lost([f"{log} shows a traceback:", err])
        if code not in CODES and not (code == -signal.SIGKILL and self.scene.kills):
            raise Lost([f"{log} ended with {code}:", err])
        if not disturbed and code != 1:
            raise Lost([f"{log}, undisturbed, ended with {code}; 1 says that some diverged:", err])
        if code not in (0, 1):
            return False
        try:
            said = json.loads(out)
        except ValueError:
            raise Lost([f"{log} ended with {code} and without its JSON:", out, err]) from None
        if not disturbed and said["tracking"] != "written":
            raise Lost([f"{log}, undisturbed, did not write to MLflow:", err])
        return said["ok"] + said["collapsed"] + said["diverged"] == said["planned"]

    def _judge_others(self) -> None:
        """Look at what second drivers have answered, once the first has ended."""
        for process in self.scene.others:
            process.wait(PATIENCE)
        for path in sorted(self.scene.place.glob("second-*.err")):
            text = path.read_text(errors="replace")
            if "Traceback" in text:
                raise Lost([f"{path.name}: a traceback:", text])
            if "held by" not in text:
                self.note(f"{path.name}: came when the first had ended")
            path.rename(path.with_suffix(".seen"))
        self.scene.others.clear()

    def _all_gone(self) -> None:
        """Wait until none of our processes is left; raise Lost where one stays."""
        end = time.monotonic() + LEAVING
        while left := self.scene.family.living():
            self.scene.due()
            if time.monotonic() > end:
                lines = [f"{one.pid} (child of {one.parent}): {one.command}" for one in left]
                raise Lost([f"still there {LEAVING:g} s after their driver:", *lines])
            time.sleep(0.1)

    def _where(self, log: str) -> str:
        """Ask a driver that hangs where it stands."""
        driver = self.scene.driver()
        if driver is not None:
            os.kill(driver, signal.SIGABRT)
            time.sleep(2)
        return (self.scene.place / f"{log}.err").read_text(errors="replace")


def undisturbed(folder: Path, server: Server, steps: int) -> Reference:
    """Run the study once in peace, and return what came of it."""
    scene = Scene(folder, server, random.Random(0), confined=False, small=False)
    try:
        (folder / "x.yaml").write_text(study_of("reference", steps))
        campaign = Campaign(scene, Deck(scene.dice), Tally(), most=0, name="reference")
        if not campaign._call(disturbed=False):
            raise Lost(["the undisturbed reference is not complete"])
        campaign._all_gone()
        return reference_of(scene.study)
    finally:
        scene.close(None)
