"""Identity is content: what defines a run is in its run_id, and nothing else is."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import tiny

from models.datasets import Dataset, Digits
from models.spec import Spec
from sweeps import cells
from sweeps.cells import Cell, identity
from sweeps.plan import all_runs
from sweeps.study import Study, StudyFile, _cells, name_cells

DIGEST = "0" * 64


def run_ids(raw: dict[str, Any]) -> set[str]:
    """Return the run_ids of a study file's content, without loading images."""
    mistakes: list[tuple[str, str]] = []
    found = _cells(raw, lambda *mistake: mistakes.append(mistake))
    assert not mistakes
    seeds = StudyFile.model_validate(raw).seeds
    return {identity(spec, DIGEST, seed) for _, spec in found for seed in seeds}


def shuffled(value: Any, order: random.Random) -> Any:
    """Permute the keys of every mapping; lists keep their order."""
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: shuffled(value[key], order) for key in keys}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_blocks_and_seeds_changes_no_run_id(order: random.Random) -> None:
    raw = tiny(seeds=[3, 1, 2])
    other = shuffled(raw, order)
    order.shuffle(other["cells"])
    order.shuffle(other["seeds"])
    assert run_ids(other) == run_ids(raw)


@given(
    st.fixed_dictionaries(
        {
            "name": st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True),
            "question": st.text(max_size=20),
            "metric": st.sampled_from(["auc_oracle", "average_precision"]),
            "low": st.floats(0, 1),
            "resources": st.fixed_dictionaries(
                {"cpus": st.floats(0.5, 4), "max_concurrent": st.integers(1, 9)}
            ),
        }
    )
)
def test_what_does_not_define_a_training_changes_no_run_id(changes: dict[str, Any]) -> None:
    assert run_ids(tiny(**changes)) == run_ids(tiny())


def test_a_default_written_out_changes_no_run_id() -> None:
    written = tiny(cells=[{"objective": "vae", "prior": {"kind": "normal", "mean": 0, "scale": 1}}])
    assert run_ids(written) == run_ids(tiny(cells=[{"objective": "vae"}]))


BASE = Spec.model_validate({"objective": "vae", "prior": "bimodal"})
CHANGES: list[dict[str, Any]] = [
    {"activation": "leaky_relu"},
    {"network": {"hidden": [64]}},
    {"network": {"hidden": [32, 64]}},
    {"network": {"batch_norm": True}},
    {"code": {"style_units": 1}},
    {"code": {"style_units": 1, "style": "normal"}},
    {"code": {"class_units": 2}, "prior": "normal"},
    {"code": {"class_units": 3}, "prior": "normal"},
    {"activation": {"encoder": "elu", "decoder": "tanh"}},
    {"activation": {"encoder": "tanh", "decoder": "elu"}},
    {"activation": {"encoder": "elu"}},
    {"training": {"steps": 601}},
    {"training": {"batch_size": 64}},
    {"training": {"learning_rate": 0.0020000001}},
    {"prior": "normal"},
    {"prior": "mixture"},
    {"prior": {"kind": "mixture", "means": [-2, 0, 2.5]}},
    {"prior": {"kind": "mixture", "weights": [1, 2, 1]}},
    {"prior": {"kind": "mixture", "scales": [0.35, 0.35, 0.36]}},
    {"prior": {"kind": "bimodal", "m": 1.0000001}},
    {"prior": {"kind": "bimodal", "s": 0.36}},
    {"divergence": {"kind": "kl", "weight": 0.5}},
    {"divergence": {"kind": "kl", "warm_up": 1}},
    {"divergence": {"kind": "kl", "nodes": 64}},
    {"objective": "wae"},
    {"objective": "wae", "divergence": {"kind": "wasserstein", "p": 1}},
    {"objective": "wae", "divergence": {"kind": "wasserstein", "directions": 51}},
    {"objective": "wae", "divergence": "mmd"},
    {"objective": "wae", "divergence": {"kind": "mmd", "scales": [1]}},
    {"objective": "wae", "prior": "uniform"},
    {"objective": "wae", "prior": {"kind": "uniform", "high": 2}},
]
SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"prior": {"kind": "mixture", "means": [2, -1], "scales": [0.2, 0.5], "weights": [1, 3]}},
        {
            "prior": {
                "kind": "mixture",
                "means": [-1, 2],
                "scales": [0.5, 0.2],
                "weights": [0.75, 0.25],
            }
        },
    ),
    (
        {"prior": {"kind": "mixture", "means": [-1, 0, 1], "scales": 0.5}},
        {
            "prior": {
                "kind": "mixture",
                "means": [[1], [0], [-1]],
                "scales": [0.5] * 3,
                "weights": [7, 7, 7],
            }
        },
    ),
    (
        {
            "prior": {"kind": "mixture", "means": [[0, 1], [-0.0, -1]]},
            "code": {"class_units": 2},
        },
        {
            "prior": {"kind": "mixture", "means": [[0, -1], [0, 1]], "weights": [2, 2]},
            "code": {"class_units": 2},
        },
    ),
    ({"activation": {"encoder": "elu", "decoder": "elu"}}, {"activation": "elu"}),
    ({"activation": {"encoder": "relu"}}, {}),
]


def test_any_change_of_the_specification_is_another_run() -> None:
    specs = [BASE]
    for change in CHANGES:
        settings = {"objective": "vae", "prior": "bimodal", **change}
        specs.append(Spec.model_validate(settings))
    assert len({identity(spec, DIGEST, 0) for spec in specs}) == len(specs)
    changed = {field for change in CHANGES for field in change}
    assert changed == set(Spec.model_fields), "a new field needs a change here"


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_means_the_same_is_the_same_run(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Peaks in any order, a scale or weights written out or not, two equal activations."""
    specs = [
        Spec.model_validate({"objective": "vae", "prior": "bimodal", **s}) for s in (one, other)
    ]
    assert specs[0] == specs[1]
    assert identity(specs[0], DIGEST, 0) == identity(specs[1], DIGEST, 0)
    assert Spec.model_validate_json(specs[0].canonical_json()) == specs[0], "resolved, read again"


def test_another_split_is_another_run_and_another_cell() -> None:
    splits = [None, 0.8, 0.80000001, 0.5]
    assert len({identity(BASE, DIGEST, 0, split) for split in splits}) == len(splits)
    assert len({identity(BASE, DIGEST, None, split) for split in splits}) == len(splits)


@given(st.integers(0, 2**27 - 1), st.integers(0, 2**27 - 1))
def test_another_seed_is_another_run(one: int, other: int) -> None:
    same = identity(BASE, DIGEST, one) == identity(BASE, DIGEST, other)
    assert same == (one == other)


def test_another_image_digest_or_trainer_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    first = identity(BASE, DIGEST, 0)
    assert identity(BASE, "1" + DIGEST[1:], 0) != first
    monkeypatch.setattr(cells, "TRAINER_VERSION", cells.TRAINER_VERSION + 1)
    assert identity(BASE, DIGEST, 0) != first


def test_identities_do_not_drift() -> None:
    """Studies of old stay done: raise the schema or trainer version before changing this."""
    spec = (
        '{"activation":"relu","code":{"class_units":1,"squash":"none","style":"free",'
        '"style_units":0},"divergence":{"kind":"kl","nodes":128,"warm_up":0,"weight":1.0},'
        '"network":{"batch_norm":false,"hidden":[64,32],"kind":"mlp"},"objective":"vae",'
        '"prior":{"anneal":null,"kind":"bimodal","m":1.0,"s":0.35,"share":0.5},'
        '"training":{"batch_size":128,"learning_rate":0.002,"steps":600}}'
    )
    content = f'{{"images":"{DIGEST}","schema":3,"seed":7,"spec":{spec},"trainer":2}}'
    assert BASE.canonical_json() == spec
    assert identity(BASE, DIGEST, 7) == hashlib.sha256(content.encode()).hexdigest()[:16]


def dataset(labels: Any, pixel: float = 0.0) -> Dataset:
    source = Digits(classes=(1, 8)).load()
    images = source.images.copy()
    images[0, 0, 0, 0] = pixel
    return Dataset("x", images, labels, ("1", "8"))


def study() -> Study:
    named: tuple[Cell, ...] = name_cells([BASE])
    return Study("x", "", Digits(), (0, 1), named, "auc_split", None, 0.8, None, None)  # type: ignore[arg-type]


def test_labels_are_no_part_of_an_identity_but_one_pixel_is() -> None:
    source = Digits(classes=(1, 8)).load()
    assert source.labels is not None
    ids = [
        {run.run_id for run in all_runs(study(), data)}
        for data in (
            dataset(source.labels),
            dataset(source.labels[::-1].copy()),
            dataset(None),
            dataset(source.labels, pixel=0.5),
        )
    ]
    assert ids[0] == ids[1] == ids[2]
    assert not ids[0] & ids[3]
