"""Axes multiply inside a block, blocks are chained, each is merged over the shared settings."""

from __future__ import annotations

from typing import Any

from sweeps import grid


def settings(spec: dict[str, Any], block: dict[str, Any]) -> list[dict[str, Any]]:
    found = [point.settings for point in grid.points(spec, block, "cells[0]")]
    assert len(found) == grid.count(spec, block)
    return found


def test_axes_multiply_in_the_order_of_the_file() -> None:
    found = settings({}, {"objective": ["vae", "wae"], "activation": ["relu", "leaky_relu"]})
    assert [(one["objective"], one["activation"]) for one in found] == [
        ("vae", "relu"),
        ("vae", "leaky_relu"),
        ("wae", "relu"),
        ("wae", "leaky_relu"),
    ]


def test_a_list_field_needs_a_list_of_lists_to_be_an_axis() -> None:
    one = settings({}, {"network": {"hidden": [64, 32]}})
    two = settings({}, {"network": {"hidden": [[64, 32], [16]]}})
    assert [point["network"]["hidden"] for point in one] == [[64, 32]]
    assert [point["network"]["hidden"] for point in two] == [[64, 32], [16]]


def test_axes_nest_in_settings_and_in_axes() -> None:
    found = settings({}, {"prior": ["normal", {"kind": "bimodal", "m": [1, 2]}]})
    assert [point["prior"] for point in found] == [
        {"kind": "normal"},
        {"kind": "bimodal", "m": 1},
        {"kind": "bimodal", "m": 2},
    ]


def test_blocks_are_merged_key_by_key_over_the_shared_settings() -> None:
    spec = {"training": {"steps": 5, "batch_size": 32}, "prior": {"kind": "bimodal", "s": 0.2}}
    (same_kind,) = settings(spec, {"training": {"steps": 7}, "prior": {"kind": "bimodal", "m": 2}})
    assert same_kind["training"] == {"steps": 7, "batch_size": 32}
    assert same_kind["prior"] == {"kind": "bimodal", "s": 0.2, "m": 2}
    (other_kind,) = settings(spec, {"prior": "normal"})
    assert other_kind["prior"] == {"kind": "normal"}


def test_an_axis_in_the_shared_settings_multiplies_every_block() -> None:
    found = settings({"activation": ["relu", "leaky_relu"]}, {"objective": "ae"})
    assert [point["activation"] for point in found] == ["relu", "leaky_relu"]
    (replaced,) = settings({"activation": ["relu", "leaky_relu"]}, {"activation": "relu"})
    assert replaced["activation"] == "relu"


def test_each_value_knows_its_place() -> None:
    spec = {"training": {"steps": 5}}
    block = {"prior": ["normal", {"kind": "bimodal", "m": -1}]}
    points = list(grid.points(spec, block, "cells[3]"))
    assert points[0].where(("prior", "kind")) == "cells[3].prior[0]"
    assert points[1].where(("prior", "m")) == "cells[3].prior[1].m"
    assert points[1].where(("training", "steps")) == "spec.training.steps"
    assert points[1].where(("objective",)) == "cells[3].objective"
    assert points[1].where(()) == "cells[3]"


def settings_with(prior: dict[str, Any]) -> list[dict[str, Any]]:
    return [one["prior"] for one in settings({}, {"prior": {"kind": "mixture", **prior}})]


def test_the_depth_of_a_list_says_whether_it_is_an_axis() -> None:
    """Means are a list of numbers or, in several units, of lists; an axis is one level deeper."""
    line, plane = [-1, 1], [[-1, 1], [-2, 2]]
    for means in (line, plane, [-1, [0, 1]]):
        assert [one["means"] for one in settings_with({"means": means})] == [means]
    axis = [[[-1], [1]], [[-2], [0], [2]]]
    assert [one["means"] for one in settings_with({"means": axis})] == axis
    planes = [plane, [[0, 0], [3, 3], [6, 0]]]
    assert [one["means"] for one in settings_with({"means": planes})] == planes
    for name in ("scales", "weights"):
        assert [one[name] for one in settings_with({name: [1, 2]})] == [[1, 2]]
        assert [one[name] for one in settings_with({name: [[1, 2], [3, 4]]})] == [[1, 2], [3, 4]]
    kernels = settings({}, {"divergence": {"kind": "mmd", "scales": [[1], [1, 2]]}})
    assert [one["divergence"]["scales"] for one in kernels] == [[1], [1, 2]]


def test_axes_of_lists_and_of_values_multiply() -> None:
    prior = {"kind": "mixture", "means": [[[-1], [1]], [[-2], [2]]], "scales": [[0.3], [0.5]]}
    found = settings({}, {"prior": prior, "divergence": ["mmd", "wasserstein"]})
    assert len({str(one) for one in found}) == 8


def test_activations_apart_are_an_axis_each() -> None:
    block = {"activation": ["relu", {"encoder": ["elu", "tanh"], "decoder": "relu"}]}
    assert [one["activation"] for one in settings({}, block)] == [
        "relu",
        {"encoder": "elu", "decoder": "relu"},
        {"encoder": "tanh", "decoder": "relu"},
    ]
