"""Whatever a study file holds, the answer is a study or sentences: no other exception, no wait."""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from studies import TINY, as_yaml

from models.spec import Spec
from sweeps.mistakes import Refused
from sweeps.study import Study, StudyFile, load_study

LONGEST = 1000
SECONDS = 5.0  # a study file of a few kilobytes; loading takes some 10 ms

NAMES = ("kind", "hidden", "means", "weights", "wae", "mixture", "mmd", "digits", "path", "normal")
HARMFUL = ("../../etc", "<script>", "!!python/object:os.system", "eval", "1e999", "\0", "=1+1", "")
WORDS = st.sampled_from([*StudyFile.model_fields, *Spec.model_fields, *NAMES, *HARMFUL])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | WORDS
    | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
RICH: dict[str, Any] = {
    **TINY,
    "split": 0.8,
    "metric": "auc_split",
    "low": 0.8,
    "orient_by": "ink",
    "resources": {"cpus": 1, "gpus": 0, "max_concurrent": None},
    "spec": {
        "network": {"kind": "mlp", "hidden": [16], "batch_norm": False},
        "code": {"class_units": 1, "style_units": 1, "style": "free"},
        "training": {"steps": 20, "batch_size": 32, "learning_rate": 0.002},
    },
    "cells": [
        {"objective": "ae", "activation": {"encoder": "elu", "decoder": "tanh"}},
        {"objective": "vae", "prior": ["normal", {"kind": "bimodal", "m": 1, "s": 0.35}]},
        {
            "objective": "wae",
            "prior": [{"kind": "mixture", "means": [-1, 1], "scales": 0.3, "weights": [1, 2]}],
            "divergence": [{"kind": "mmd", "scales": [1, 2]}, {"kind": "wasserstein", "p": 1}],
        },
    ],
}


def places(value: Any, path: tuple[int | str, ...] = ()) -> list[tuple[int | str, ...]]:
    """Return the path of every value inside, the outermost first."""
    if not isinstance(value, dict | list):
        return [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def replaced(study: dict[str, Any], path: tuple[int | str, ...], value: Any) -> Any:
    if not path:
        return value
    study = copy.deepcopy(study)
    owner: Any = study
    for part in path[:-1]:
        owner = owner[part]
    owner[path[-1]] = value
    return study


def answer(text: str | bytes) -> Study | Refused:
    """Load a study of this text; fail on any other exception, on a long wait, on no sentence."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fuzz.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "replace"))
        start = time.monotonic()
        found: Study | Refused
        try:
            found, _ = load_study(file)
        except Refused as refusal:
            found = refusal
        assert time.monotonic() - start < SECONDS
        assert [one.name for one in Path(folder).iterdir()] == ["fuzz.yaml"]
    if isinstance(found, Refused):
        assert found.mistakes
        for line in found.mistakes:
            assert line.strip()
            assert line.isprintable(), repr(line)
            assert len(line) < LONGEST
    return found


def test_the_study_that_is_broken_below_is_whole() -> None:
    assert isinstance(answer(as_yaml(RICH)), Study)


@given(st.sampled_from(places(RICH)), VALUES)
@example(("seeds",), 10**30)
@example(("seeds",), list(range(2)) * 2)
@example(("cells", 2, "prior"), {"kind": "mixture", "means": [[1, 2], 3]})
@example(("cells", 2, "prior"), {"kind": "mixture", "means": [[[[1]]]]})
@example(("spec", "network", "hidden"), [[], [[]]])
@example(("spec", "training", "batch_size"), 2**70)
@example(("dataset",), {"path": "/dev/zero"})
@example(("dataset",), {"path": "/proc/self/mem"})
@example(("dataset",), {"path": "\u0000"})
def test_any_value_anywhere(place: tuple[int | str, ...], value: Any) -> None:
    answer(as_yaml(replaced(RICH, place, value)))


@given(st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=4)), min_size=1, max_size=4))
def test_any_bytes_anywhere(cuts: list[tuple[int, bytes]]) -> None:
    text = as_yaml(RICH).encode()
    for place, inserted in cuts:
        where = place % len(text)
        text = text[:where] + inserted + text[where + 1 :]
    answer(text)


@given(st.binary(max_size=300))
def test_any_bytes_at_all(text: bytes) -> None:
    assert isinstance(answer(text), Refused)


PAIRS = zip("abcdefg", "bcdefgh", strict=True)
BOMBS = {
    "anchors": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]\n" for p, c in PAIRS),
    "depth": "cells: " + "[" * 5000,
    "merge keys": "a: &a {x: 1}\n" + "b: {" + "<<: *a, " * 3 + "}\n",
    "a loop": "a: &a [*a]\n",
    "a tag": "name: !!python/object/apply:os.system [id]\n",
    "a long number": "seeds: " + "9" * 5000 + "\n",
    "two documents": "name: a\n---\nname: b\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_end_in_a_sentence(bomb: str) -> None:
    found = answer(BOMBS[bomb])
    assert isinstance(found, Refused)
