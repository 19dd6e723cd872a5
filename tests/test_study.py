"""A study file becomes a study, or every mistake in it at once, each with its place."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from simulated import SENTENCES
from studies import tiny, write

from models.datasets import Digits
from models.divergences import DIVERGENCES
from models.settings import Settings
from models.spec import Spec
from sweeps.mistakes import Refused, models_in
from sweeps.study import StudyFile, find_study, load_study, usual_metric


def refusals(folder: Path, study: Any) -> list[str]:
    with pytest.raises(Refused) as refused:
        load_study(write(folder, study))
    assert not [path for path in folder.iterdir() if path.name != "x.yaml"], "nothing is written"
    return refused.value.mistakes


def with_spec(**settings: Any) -> dict[str, Any]:
    return tiny(spec={**tiny()["spec"], **settings})


def with_cell(**settings: Any) -> dict[str, Any]:
    return tiny(cells=[{"objective": "ae"}, settings])


METRICS = (
    "accuracy, agreement, ari, auc_covariate, auc_matched, auc_oracle, auc_split, "
    "average_precision, balanced_accuracy, nmi"
)
TOP = (
    "cells, dataset, diagnostics, low, metric, name, orient_by, question, resources, seeds, spec, "
    "split, vary"
)
CELL = "activation, code, divergence, network, objective, prior, training"

TOO_DEEP = (
    "conv halves height and width for each entry of channels, here 4 times, and images of 8 x 8 px "
    "can be halved 3 times; list at most 3"
)

# What is finite from a prior that ends: all that compares more than each image's own density.
FINITE = [
    f"'{kind}'"
    for kind, row in DIVERGENCES.items()
    if not row.everywhere and row.compares != "density"
]

RULES: dict[str, tuple[Any, str]] = {
    "name missing": (tiny(name=None), "x.yaml: name is missing"),
    "name shape": (
        tiny(name="My Study"),
        "x.yaml: name: expected lower-case letters, digits and hyphens, got 'My Study'; "
        "try 'my-study'",
    ),
    "name length": (
        tiny(name="a" * 101),
        f"x.yaml: name: string should have at most 100 characters, got '{'a' * 40}' (text)",
    ),
    "name type": (tiny(name=3), "x.yaml: name: expected text, got 3"),
    "question type": (tiny(question=[1]), "x.yaml: question: expected text, got a list"),
    "unknown key": (
        tiny(qestion="?"),
        f"x.yaml: unknown key 'qestion'; did you mean 'question'? known: {TOP}",
    ),
    "dataset missing": (
        tiny(dataset=None),
        "x.yaml: dataset is missing; one of: digits, ising, stargalaxy",
    ),
    "dataset unknown": (
        tiny(dataset="digit"),
        "x.yaml: dataset.name: unknown name 'digit'; did you mean 'digits'? "
        "known: digits, ising, stargalaxy",
    ),
    "dataset type": (
        tiny(dataset=3),
        "x.yaml: dataset: expected a mapping of settings, got 3",
    ),
    "dataset key": (
        tiny(dataset={"name": "digits", "class": [1, 8]}),
        "x.yaml: dataset: unknown key 'class'; did you mean 'classes'? known: classes, name, "
        "preprocess",
    ),
    "class out of range": (
        tiny(dataset={"name": "digits", "classes": [1, 10]}),
        "x.yaml: dataset.classes[1]: expected at most 9, got 10",
    ),
    "class twice": (
        tiny(dataset={"name": "digits", "classes": [1, 1]}),
        "x.yaml: dataset.classes: class 1 is named twice",
    ),
    "one class": (
        tiny(dataset={"name": "digits", "classes": [1]}),
        "x.yaml: dataset.classes: expected two classes or more, or no labels at all, got 1",
    ),
    "metric of two classes": (
        tiny(dataset={"name": "digits", "classes": [1, 2, 3]}, metric="auc_split"),
        "x.yaml: metric: auc_split compares two classes, and the dataset has 3; "
        "choose one of: auc_matched, accuracy, ari, nmi",
    ),
    "vary leaves out": (
        tiny(vary=["init"]),
        "x.yaml: vary: order and noise are missing: a seed always redraws init, order and noise; "
        "add them",
    ),
    "vary a word": (
        tiny(vary=["init", "ordr", "noise"]),
        "x.yaml: vary: unknown word 'ordr'; did you mean 'order'? known: data, init, noise, order",
    ),
    "split whole": (tiny(split=1.0), "x.yaml: split: expected less than 1, got 1.0"),
    "split nothing": (tiny(split=0), "x.yaml: split: expected more than 0, got 0"),
    "split leaves no class": (
        tiny(split=0.9999),
        "x.yaml: split: the part that is scored lacks a class: 1 of 356 images; lower it",
    ),
    "normal mean": (
        with_cell(objective="wae", prior={"kind": "normal", "mean": -2e6}),
        "x.yaml: cells[1].prior.mean: expected at least -1000000, got -2000000.0",
    ),
    "uniform without room": (
        with_cell(objective="wae", prior={"kind": "uniform", "low": 2, "high": 1.5}),
        "x.yaml: cells[1].prior.high: expected more than low (2), got 1.5",
    ),
    "kl from a uniform prior": (
        with_cell(objective="vae", prior="uniform"),
        "x.yaml: cells[1].divergence: 'kl' from a 'uniform' prior is infinite, since its density "
        f"ends; use {', '.join(FINITE[:-1])} or {FINITE[-1]}, or another prior",
    ),
    "means empty": (
        with_cell(objective="wae", prior={"kind": "mixture", "means": []}),
        "x.yaml: cells[1].prior.means: expected at least one value, got none",
    ),
    "mean of text": (
        with_cell(objective="wae", prior={"kind": "mixture", "means": [0, "1"]}),
        "x.yaml: cells[1].prior.means[1]: expected a number, got '1' (text)",
    ),
    "mean too large": (
        with_cell(objective="wae", prior={"kind": "mixture", "means": [[0, 1], [1, 1e7]]}),
        "x.yaml: cells[1].prior.means[1][1]: expected at most 1000000, got 10000000.0",
    ),
    "means of different lengths": (
        with_cell(objective="wae", prior={"kind": "mixture", "means": [0, [1, 2]]}),
        "x.yaml: cells[1].prior.means: expected numbers, or lists with the same number of units "
        "each, got a list of 2 and a number",
    ),
    "a peak twice": (
        with_cell(objective="wae", prior={"kind": "mixture", "means": [-1, 1, 1]}),
        "x.yaml: cells[1].prior.means: 1 is there twice; use one, and its weight",
    ),
    "a peak of two units twice": (
        with_cell(objective="wae", prior={"kind": "mixture", "means": [[0, 1.5], [0, 1.5]]}),
        "x.yaml: cells[1].prior.means: [0, 1.5] is there twice; use one, and its weight",
    ),
    "scales": (
        with_cell(objective="wae", prior={"kind": "mixture", "scales": [1, 2]}),
        "x.yaml: cells[1].prior.scales: expected one scale, or one for each of 3 means, got 2",
    ),
    "scale zero": (
        with_cell(objective="wae", prior={"kind": "mixture", "scales": 0}),
        "x.yaml: cells[1].prior.scales[0]: expected at least 1e-06, got 0",
    ),
    "weights": (
        with_cell(objective="wae", prior={"kind": "mixture", "weights": [1, 2]}),
        "x.yaml: cells[1].prior.weights: expected a weight for each of 3 means, got 2",
    ),
    "a share of nothing": (
        with_cell(objective="wae", prior={"kind": "mixture", "weights": [1, 1e-6, 1]}),
        "x.yaml: cells[1].prior.weights: expected shares of at least 1e-06, got 1e-06 of 2",
    ),
    "lists of means on one class unit": (
        with_cell(objective="wae", prior={"kind": "mixture", "means": [[-1, 1], [-2, 2]]}),
        "x.yaml: cells[1].prior: its means are lists of 2 numbers, and code.class_units is 1; "
        "set code.class_units to 2, or write each mean with 1",
    ),
    "numbers as means on two class units": (
        with_cell(objective="wae", prior="mixture", code={"class_units": 2}),
        "x.yaml: cells[1].prior: its means are numbers, and code.class_units is 2; "
        "set code.class_units to 1, or write each mean with 2",
    ),
    "bimodal on three class units": (
        with_cell(objective="wae", prior="bimodal", code={"class_units": 3}),
        "x.yaml: cells[1].prior: 'bimodal' has its peaks on one class unit, and code.class_units "
        "is 3; use 'mixture' with means such as [[-1, 0, 0], [1, 0, 0]]",
    ),
    "normal style without a prior": (
        with_cell(objective="ae", code={"style_units": 1, "style": "normal"}),
        "x.yaml: cells[1].code: objective 'ae' pushes no unit anywhere, so style is free; "
        "remove it, or choose objective 'vae' or 'wae'",
    ),
    "normal style without style units": (
        with_cell(objective="wae", code={"style": "normal"}),
        "x.yaml: cells[1].code: style is normal, and there are no style units; set style_units",
    ),
    "activation of a decoder": (
        with_cell(objective="ae", activation={"encoder": "elu", "decoder": "tanhh"}),
        "x.yaml: cells[1].activation.decoder: unknown decoder 'tanhh'; did you mean 'tanh'? "
        "known: elu, gelu, leaky_relu, relu, tanh",
    ),
    "directions": (
        with_cell(objective="wae", divergence={"kind": "wasserstein", "directions": 0}),
        "x.yaml: cells[1].divergence.directions: expected at least 1, got 0",
    ),
    "no kernel": (
        with_cell(objective="wae", divergence={"kind": "mmd", "scales": []}),
        "x.yaml: cells[1].divergence.scales: expected at least one value, got none",
    ),
    "kernel of no width": (
        with_cell(objective="wae", divergence={"kind": "mmd", "scales": [1, 0]}),
        "x.yaml: cells[1].divergence.scales[1]: expected more than 0, got 0",
    ),
    "path empty": (
        tiny(dataset={"path": ""}),
        "x.yaml: dataset.path: string should have at least 1 character, got '' (text)",
    ),
    "path type": (tiny(dataset={"path": 3}), "x.yaml: dataset.path: expected text, got 3"),
    "path and name": (
        tiny(dataset={"name": "digits", "path": "my.npz"}),
        "x.yaml: dataset: unknown key 'path'; known: classes, name, preprocess",
    ),
    "path key": (
        tiny(dataset={"path": "my.parquet", "lable": "class"}),
        "x.yaml: dataset: unknown key 'lable'; did you mean 'label'? "
        "known: classes, covariates, image, label, path, preprocess, shape",
    ),
    "no classes": (
        tiny(dataset={"path": "my.npz", "classes": []}),
        "x.yaml: dataset.classes: expected at least one value, got none",
    ),
    "classes type": (
        tiny(dataset={"path": "my.npz", "classes": "spiral"}),
        "x.yaml: dataset.classes: expected a list of classes, by name or number",
    ),
    "classes fractions": (
        tiny(dataset={"path": "my.npz", "classes": [0.5, True]}),
        "x.yaml: dataset.classes: expected classes by name or number; put a name in quotes",
    ),
    "classes twice": (
        tiny(dataset={"path": "my.npz", "classes": ["a", 4, "4"]}),
        "x.yaml: dataset.classes: class 4 is named twice",
    ),
    "covariates type": (
        tiny(dataset={"path": "my.parquet", "covariates": "size"}),
        "x.yaml: dataset.covariates: expected a list, got 'size' (text)",
    ),
    "covariates twice": (
        tiny(dataset={"path": "my.parquet", "covariates": ["size", "size"]}),
        "x.yaml: dataset.covariates: column 'size' is named twice",
    ),
    "shape short": (
        tiny(dataset={"path": "my.parquet", "shape": [28]}),
        "x.yaml: dataset.shape: expected at least 2 values, got 1",
    ),
    "shape zero": (
        tiny(dataset={"path": "my.parquet", "shape": [1, 28, 0]}),
        "x.yaml: dataset.shape[2]: expected at least 1, got 0",
    ),
    "mode": (
        tiny(dataset={"path": ".", "mode": "gray"}),
        "x.yaml: dataset.mode: unknown mode 'gray'; did you mean 'grey'? known: grey, rgb",
    ),
    "step type": (
        tiny(dataset={"name": "digits", "preprocess": "centre"}),
        "x.yaml: dataset.preprocess: expected a list, got 'centre' (text)",
    ),
    "step unknown": (
        tiny(dataset={"name": "digits", "preprocess": ["center"]}),
        "x.yaml: dataset.preprocess[0]: unknown kind 'center'; did you mean 'centre'? "
        "known: asinh, centre, clip, crop, flux, sign, standardise",
    ),
    "step key": (
        tiny(dataset={"name": "digits", "preprocess": [{"kind": "flux", "norms": "l2"}]}),
        "x.yaml: dataset.preprocess[0]: unknown key 'norms'; did you mean 'norm'? "
        "known: kind, norm",
    ),
    "crop without a size": (
        tiny(dataset={"name": "digits", "preprocess": ["crop"]}),
        "x.yaml: dataset.preprocess[0]: size is missing",
    ),
    "crop size": (
        tiny(dataset={"path": "my.npz", "preprocess": [{"kind": "crop", "size": 0}]}),
        "x.yaml: dataset.preprocess[0].size: expected a number of pixels or [height, width], "
        "each at least 1",
    ),
    "clip sigma": (
        tiny(dataset={"name": "digits", "preprocess": ["centre", {"kind": "clip", "sigma": 0}]}),
        "x.yaml: dataset.preprocess[1].sigma: expected more than 0, got 0",
    ),
    "asinh softening": (
        tiny(dataset={"name": "digits", "preprocess": [{"kind": "asinh", "softening": -1}]}),
        "x.yaml: dataset.preprocess[0].softening: expected more than 0, got -1",
    ),
    "no seeds": (tiny(seeds=0), "x.yaml: seeds: expected 1 to 100000 seeds, got 0"),
    "seeds empty": (tiny(seeds=[]), "x.yaml: seeds: expected at least one value, got none"),
    "seeds type": (
        tiny(seeds="many"),
        "x.yaml: seeds: expected a number of seeds or a list of seeds, got 'many' (text)",
    ),
    "seeds truth": (
        tiny(seeds=True),
        "x.yaml: seeds: expected a number of seeds or a list of seeds, got true (a truth value)",
    ),
    "seed twice": (tiny(seeds=[4, 4]), "x.yaml: seeds: seed 4 is listed twice"),
    "seed negative": (tiny(seeds=[-1]), "x.yaml: seeds[0]: expected at least 0, got -1"),
    "seed too large": (
        tiny(seeds=[2**40]),
        f"x.yaml: seeds[0]: expected at most {2**27 - 1}, got {2**40}",
    ),
    "seed fraction": (tiny(seeds=[1.5]), "x.yaml: seeds[0]: expected a whole number, got 1.5"),
    "metric unknown": (
        tiny(metric="auc_splitt"),
        f"x.yaml: metric: unknown metric 'auc_splitt'; did you mean 'auc_split'? known: {METRICS}",
    ),
    "metric needs orientation": (
        tiny(metric="auc_covariate"),
        "x.yaml: metric: auc_covariate needs orient_by: the covariate that gives the code its sign",
    ),
    "orientation unknown": (
        tiny(orient_by="inc"),
        "x.yaml: orient_by: unknown covariate 'inc'; did you mean 'ink'? known: ink, slant, width",
    ),
    "low above": (tiny(low=1.5), "x.yaml: low: expected at most 1, got 1.5"),
    "low type": (tiny(low="0.8"), "x.yaml: low: expected a number, got '0.8' (text)"),
    "resources zero": (
        tiny(resources={"cpus": 0}),
        "x.yaml: resources.cpus: expected more than 0, got 0",
    ),
    "resources negative": (
        tiny(resources={"gpus": -1}),
        "x.yaml: resources.gpus: expected at least 0, got -1",
    ),
    "a gpu and a half": (
        tiny(resources={"gpus": 1.5}),
        "x.yaml: resources.gpus: expected a part of one GPU or a whole number of them, got 1.5",
    ),
    "resources key": (
        tiny(resources={"cpu": 1}),
        "x.yaml: resources: unknown key 'cpu'; did you mean 'cpus'? "
        "known: cpus, gpus, max_concurrent",
    ),
    "concurrent fraction": (
        tiny(resources={"max_concurrent": 1.5}),
        "x.yaml: resources.max_concurrent: expected a whole number, got 1.5",
    ),
    "diagnostic unknown": (
        tiny(diagnostics=["code", "generatoin"]),
        "x.yaml: diagnostics: unknown diagnostic 'generatoin'; did you mean 'generation'? "
        "known: code, denoising, generation, physics",
    ),
    "diagnostic unknown among settings": (
        tiny(diagnostics={"noise": {}}),
        "x.yaml: diagnostics: unknown diagnostic 'noise'; "
        "known: code, denoising, generation, physics",
    ),
    "diagnostic without settings": (
        tiny(diagnostics={"code": {"bandwidth": 2}}),
        "x.yaml: diagnostics.code: every study has it, and it has no settings; remove it, "
        "or write code: true",
    ),
    "hot pixels on no image": (
        tiny(diagnostics={"denoising": {"images": 0}}),
        "x.yaml: diagnostics.denoising.images: expected at least 1, got 0",
    ),
    "no hot pixel": (
        tiny(diagnostics={"denoising": {"sites": 0}}),
        "x.yaml: diagnostics.denoising.sites: expected at least 1, got 0",
    ),
    "hot pixel that is dark": (
        tiny(diagnostics={"denoising": {"level": 0}}),
        "x.yaml: diagnostics.denoising.level: expected more than 0, got 0",
    ),
    "few samples": (
        tiny(diagnostics={"generation": {"images": 19}}),
        "x.yaml: diagnostics.generation.images: expected at least 20, got 19",
    ),
    "diagnostics of a number": (
        tiny(diagnostics=3),
        "x.yaml: diagnostics: expected a list of names, or names with their settings, got 3",
    ),
    "spec type": (tiny(spec=[1]), "x.yaml: spec: expected a mapping of settings, got a list"),
    "cells type": (tiny(cells="ae"), "x.yaml: cells: expected a list of blocks, got 'ae' (text)"),
    "cells empty": (tiny(cells=[]), "x.yaml: cells: expected a list of blocks, got none"),
    "block type": (
        tiny(cells=["ae"]),
        "x.yaml: cells[0]: expected a mapping of settings, got 'ae' (text)",
    ),
    "axis empty": (
        with_cell(objective="wae", prior=[]),
        "x.yaml: cells[1]: an empty list leaves nothing to run",
    ),
    "too many cells": (
        with_cell(
            objective="ae",
            network={"hidden": [[width] for width in range(1, 401)]},
            training={"steps": list(range(1, 401))},
        ),
        "x.yaml: cells[1]: more than 100000 configurations",
    ),
    "objective missing": (
        with_cell(activation="relu"),
        "x.yaml: cells[1]: objective is missing; one of: ae, vae, wae",
    ),
    "objective unknown": (
        with_cell(objective="wea"),
        "x.yaml: cells[1].objective: unknown objective 'wea'; did you mean 'wae'? "
        "known: ae, vae, wae",
    ),
    "cell key": (
        with_cell(objective="ae", activations="relu"),
        f"x.yaml: cells[1]: unknown key 'activations'; did you mean 'activation'? known: {CELL}",
    ),
    "activation in an axis": (
        with_cell(objective="wae", activation=["relu", "leaky_rel"]),
        "x.yaml: cells[1].activation[1]: unknown activation 'leaky_rel'; "
        "did you mean 'leaky_relu'? known: elu, gelu, leaky_relu, relu, tanh",
    ),
    "prior unknown": (
        with_cell(objective="wae", prior="bimodel"),
        "x.yaml: cells[1].prior: unknown prior 'bimodel'; did you mean 'bimodal'? "
        "known: bimodal, learned_mixture, mixture, normal, uniform",
    ),
    "prior kind missing": (
        with_cell(objective="wae", prior={"m": 1}),
        "x.yaml: cells[1].prior: kind is missing; one of: bimodal, learned_mixture, mixture, "
        "normal, uniform",
    ),
    "prior type": (
        with_cell(objective="wae", prior=3),
        "x.yaml: cells[1].prior: expected a mapping of settings or a name, got 3",
    ),
    "prior setting in an axis": (
        with_cell(objective="wae", prior=["normal", {"kind": "bimodal", "m": -1}]),
        "x.yaml: cells[1].prior[1].m: expected at least 1e-06, got -1",
    ),
    "prior key": (
        with_cell(objective="wae", prior={"kind": "bimodal", "scale": 1}),
        "x.yaml: cells[1].prior: unknown key 'scale'; did you mean 'share'? known: anneal, kind, "
        "m, s, share",
    ),
    "normal scale": (
        with_cell(objective="wae", prior={"kind": "normal", "scale": 0}),
        "x.yaml: cells[1].prior.scale: expected at least 1e-06, got 0",
    ),
    "bimodal scale": (
        with_cell(objective="wae", prior={"kind": "bimodal", "s": 0}),
        "x.yaml: cells[1].prior.s: expected at least 1e-06, got 0",
    ),
    "not finite": (
        with_cell(objective="wae", prior={"kind": "bimodal", "m": float("inf")}),
        "x.yaml: cells[1].prior.m: expected a finite number, got inf",
    ),
    "divergence unknown": (
        with_cell(objective="wae", divergence="wasserstien"),
        "x.yaml: cells[1].divergence: unknown divergence 'wasserstien'; "
        f"did you mean 'wasserstein'? known: {', '.join(sorted(DIVERGENCES))}",
    ),
    "weight negative": (
        with_cell(objective="wae", divergence={"kind": "wasserstein", "weight": -1}),
        "x.yaml: cells[1].divergence.weight: expected at least 0, got -1",
    ),
    "warm-up negative": (
        with_cell(objective="vae", divergence={"kind": "kl", "warm_up": -1}),
        "x.yaml: cells[1].divergence.warm_up: expected at least 0, got -1",
    ),
    "nodes": (
        with_cell(objective="vae", divergence={"kind": "kl", "nodes": 7}),
        "x.yaml: cells[1].divergence.nodes: expected 32, 64, 128 or 256, got 7",
    ),
    "p": (
        with_cell(objective="wae", divergence={"kind": "wasserstein", "p": 3}),
        "x.yaml: cells[1].divergence.p: expected 1 or 2, got 3",
    ),
    "ae with a prior": (
        with_cell(objective="ae", prior="normal"),
        "x.yaml: cells[1].prior: objective 'ae' takes no prior; "
        "remove it, or choose objective 'vae' or 'wae'",
    ),
    "ae with a divergence": (
        with_cell(objective="ae", divergence="kl"),
        "x.yaml: cells[1].divergence: objective 'ae' takes no divergence; "
        "remove it, or choose objective 'vae' or 'wae'",
    ),
    "no prior": (
        with_cell(objective="vae", prior=None),
        "x.yaml: cells[1].prior: objective 'vae' needs a prior",
    ),
    "no divergence": (
        with_cell(objective="wae", divergence=None),
        "x.yaml: cells[1].divergence: objective 'wae' needs a divergence",
    ),
    "kl on a deterministic code": (
        with_cell(objective="wae", divergence="kl"),
        "x.yaml: cells[1].divergence: 'kl' compares densities q(z|x), which a deterministic code "
        "has not; with 'wae' use 'wasserstein', or choose objective 'vae'",
    ),
    "an aggregate of a deterministic code": (
        with_cell(objective="wae", divergence="js"),
        "x.yaml: cells[1].divergence: 'js' compares densities q(z|x), which a deterministic code "
        "has not; with 'wae' use 'wasserstein', or choose objective 'vae'",
    ),
    "a prior that its divergence cannot teach": (
        with_cell(objective="wae", prior="learned_mixture"),
        "x.yaml: cells[1].divergence: 'wasserstein' cannot teach a 'learned_mixture' prior; use "
        "'kl' or 'kl_aggregate', or the prior 'mixture'",
    ),
    "analogy without an end": (
        with_cell(objective="vae", divergence="analogy"),
        "x.yaml: cells[1].divergence: 'analogy' pushes codes out without end; set code.squash to "
        "tanh",
    ),
    "annealed beyond the end": (
        with_cell(
            objective="vae",
            prior={"kind": "bimodal", "anneal": {"steps": 900}},
            training={"steps": 800},
        ),
        "x.yaml: cells[1].prior: its scales are annealed over 900 steps, and training has 800; "
        "anneal over 800 or fewer",
    ),
    "learned scales below their floor": (
        with_cell(
            objective="vae", prior={"kind": "learned_mixture", "scales": 0.2, "least_scale": 0.3}
        ),
        "x.yaml: cells[1].prior.scales: expected more than least_scale (0.3), got 0.2",
    ),
    "learned weights below their floor": (
        with_cell(
            objective="vae",
            prior={"kind": "learned_mixture", "weights": [0.1, 0.9], "least_weight": 0.2},
        ),
        "x.yaml: cells[1].prior.weights: expected shares of more than least_weight (0.2), got 0.1",
    ),
    "a part learned twice": (
        with_cell(objective="vae", prior={"kind": "learned_mixture", "learn": ["means", "means"]}),
        "x.yaml: cells[1].prior.learn: a part is named twice",
    ),
    "points of a grid": (
        with_cell(objective="vae", divergence={"kind": "js", "points": 100}),
        "x.yaml: cells[1].divergence.points: expected a multiple of 16, got 100; try 96 or 112",
    ),
    "no blur": (
        with_cell(objective="wae", divergence={"kind": "sinkhorn", "blur": 0}),
        "x.yaml: cells[1].divergence.blur: expected at least 0.01, got 0",
    ),
    "scaling that stands still": (
        with_cell(objective="wae", divergence={"kind": "sinkhorn", "scaling": 1}),
        "x.yaml: cells[1].divergence.scaling: expected at most 0.99, got 1",
    ),
    "critic without layers": (
        with_cell(objective="wae", divergence={"kind": "adversarial", "hidden": []}),
        "x.yaml: cells[1].divergence.hidden: expected at least one value, got none",
    ),
    "critic that stands still": (
        with_cell(objective="wae", divergence={"kind": "adversarial", "rate": 0}),
        "x.yaml: cells[1].divergence.rate: expected more than 0, got 0",
    ),
    "noise below zero": (
        with_cell(objective="wae", divergence={"kind": "adversarial", "noise": -0.1}),
        "x.yaml: cells[1].divergence.noise: expected at least 0, got -0.1",
    ),
    "nothing learned": (
        with_cell(objective="vae", prior={"kind": "learned_mixture", "learn": []}),
        "x.yaml: cells[1].prior.learn: expected at least one value, got none",
    ),
    "least scale": (
        with_cell(objective="vae", prior={"kind": "learned_mixture", "least_scale": 0}),
        "x.yaml: cells[1].prior.least_scale: expected at least 1e-06, got 0",
    ),
    "least weight": (
        with_cell(objective="vae", prior={"kind": "learned_mixture", "least_weight": 0.6}),
        "x.yaml: cells[1].prior.least_weight: expected at most 0.5, got 0.6",
    ),
    "anneal from narrower": (
        with_cell(objective="vae", prior={"kind": "bimodal", "anneal": {"factor": 0.5}}),
        "x.yaml: cells[1].prior.anneal.factor: expected at least 1, got 0.5",
    ),
    "a share of all": (
        with_cell(objective="vae", prior={"kind": "bimodal", "share": 1.0}),
        "x.yaml: cells[1].prior.share: expected at most 0.99, got 1.0",
    ),
    "the same cell twice": (
        with_cell(objective="ae", activation="relu"),
        "x.yaml: cells[1]: a configuration that cells[0] already has; remove one",
    ),
    "network unknown": (
        with_spec(network="cnn"),
        "x.yaml: spec.network: unknown network 'cnn'; known: conv, mlp",
    ),
    "channels empty": (
        with_spec(network={"kind": "conv", "channels": []}),
        "x.yaml: spec.network.channels: expected at least one value, got none",
    ),
    "channels too many": (
        with_spec(network={"kind": "conv", "channels": [8, 4097]}),
        "x.yaml: spec.network.channels[1]: expected at most 4096, got 4097",
    ),
    "channels of another network": (
        with_spec(network={"channels": [8]}),
        "x.yaml: spec.network: unknown key 'channels'; known: batch_norm, hidden, kind",
    ),
    "more halvings than the images have": (
        with_spec(network={"kind": "conv", "channels": [8, 8, 8, 8]}),
        f"x.yaml: spec.network.channels: {TOO_DEEP}",
    ),
    "more halvings in one cell": (
        with_cell(objective="vae", network={"kind": "conv", "channels": [[8], [8, 8, 8, 8]]}),
        f"x.yaml: cells[1].network.channels[1]: {TOO_DEEP}",
    ),
    "more halvings of the shared network in one cell": (
        {
            **with_cell(objective="vae", network={"channels": [8, 8, 8, 8]}),
            "spec": {**tiny()["spec"], "network": "conv"},
        },
        f"x.yaml: cells[1].network.channels: {TOO_DEEP}",
    ),
    "more halvings than usual images have": (
        {
            **tiny(spec={"network": "conv"}),
            "dataset": {"name": "digits", "preprocess": [{"kind": "crop", "size": 3}]},
        },
        "x.yaml: spec.network: conv halves height and width for each entry of channels, here "
        "twice, and images of 3 x 3 px can be halved once; list at most 1",
    ),
    "more halvings in one of several networks": (
        with_spec(network=["mlp", {"kind": "conv", "channels": [8, 8, 8, 8]}]),
        f"x.yaml: spec.network[1].channels: {TOO_DEEP}",
    ),
    "network key": (
        with_spec(network={"hiden": [8]}),
        "x.yaml: spec.network: unknown key 'hiden'; did you mean 'hidden'? "
        "known: batch_norm, hidden, kind",
    ),
    "hidden empty": (
        with_spec(network={"hidden": []}),
        "x.yaml: spec.network.hidden: expected at least one value, got none",
    ),
    "hidden zero": (
        with_spec(network={"hidden": [8, 0]}),
        "x.yaml: spec.network.hidden[1]: expected at least 1, got 0",
    ),
    "hidden number": (
        with_spec(network={"hidden": 8}),
        "x.yaml: spec.network.hidden: expected a list, got 8",
    ),
    "hidden too wide": (
        with_spec(network={"hidden": [65537]}),
        "x.yaml: spec.network.hidden[0]: expected at most 65536, got 65537",
    ),
    "batch_norm text": (
        with_spec(network={"batch_norm": "yes"}),
        "x.yaml: spec.network.batch_norm: expected true or false, got 'yes' (text)",
    ),
    "class units": (
        with_spec(code={"class_units": 65}),
        "x.yaml: spec.code.class_units: expected at most 64, got 65",
    ),
    "style units": (
        with_spec(code={"style_units": -1}),
        "x.yaml: spec.code.style_units: expected at least 0, got -1",
    ),
    "steps": (
        with_spec(training={"steps": 0}),
        "x.yaml: spec.training.steps: expected at least 1, got 0",
    ),
    "steps text": (
        with_spec(training={"steps": "600"}),
        "x.yaml: spec.training.steps: expected a whole number, got '600' (text)",
    ),
    "batch size": (
        with_spec(training={"batch_size": 100}),
        "x.yaml: spec.training.batch_size: expected a multiple of 16, got 100; try 96 or 112",
    ),
    "batch size small": (
        with_spec(training={"batch_size": 8}),
        "x.yaml: spec.training.batch_size: expected a multiple of 16, got 8; try 16",
    ),
    "learning rate": (
        with_spec(training={"learning_rate": 0}),
        "x.yaml: spec.training.learning_rate: expected more than 0, got 0",
    ),
    "learning rate large": (
        with_spec(training={"learning_rate": 11}),
        "x.yaml: spec.training.learning_rate: expected at most 10, got 11",
    ),
    "not a mapping": ("- 1\n", "x.yaml: expected a mapping of a study's keys, got a list"),
    "empty file": ("", "x.yaml: expected a mapping of a study's keys, got nothing"),
    "key twice": (
        "name: a\nname: b\n",
        'x.yaml: line 2, column 1: found duplicate key "name" with value "b" (original value: "a")',
    ),
    "broken YAML": (
        "name: [a\nseeds: 3\n",
        "x.yaml: line 2, column 6: expected ',' or ']', but got ':'",
    ),
    "tagged YAML": (
        "name: !!python/object/apply:os.system [ls]\n",
        "x.yaml: line 1, column 7: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object/apply:os.system'",
    ),
    "alias within itself": (
        "name: a\ncells: &a [*a]\n",
        "x.yaml: line 2, column 12: more than 200000 values; is an alias within itself?",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_says_what_where_and_the_fix(rule: str, tmp_path: Path) -> None:
    study, sentence = RULES[rule]
    assert refusals(tmp_path, study) == [sentence]


def test_every_constraint_of_the_schema_has_a_rule_here() -> None:
    """A new field or bound fails here until its sentence is compared above."""
    sentences = " ".join([SENTENCES, *(sentence for _, sentence in RULES.values())])
    for model in settings_classes(StudyFile) | settings_classes(Spec):
        for name, field in model.model_fields.items():
            if field.metadata and name != "kind":
                assert f"{name}: " in sentences or f"{name}[" in sentences, (model, name)


def settings_classes(model: type[Any]) -> set[type[Any]]:
    found = {model}
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            found |= settings_classes(inner)
    assert all(issubclass(one, Settings) for one in found)
    return found


def test_all_mistakes_at_once_each_once(tmp_path: Path) -> None:
    study = {
        "name": "Two",
        "dataset": {"name": "digits", "classes": [1, 8]},
        "seeds": [1, 1],
        "spec": {"training": {"batch_size": 100}},
        "cells": [
            {"objective": ["vae", "wae"], "prior": ["normal", "mixtur"], "divergence": "kl"},
            {"objective": "ae", "prior": "normal", "bogus": 1},
        ],
        "orient_by": "inkk",
        "metric": "auc",
    }
    mistakes = refusals(tmp_path, study)
    assert len(mistakes) == len(set(mistakes))
    places = [mistake.split(": ")[1] for mistake in mistakes]
    assert sorted(places) == sorted(
        [
            "name",
            "seeds",
            "metric",
            "spec.training.batch_size",
            "cells[0].prior[1]",
            "cells[0].divergence",
            "cells[1]",
            "cells[1].prior",
            "orient_by",
        ]
    )


def test_a_missing_file_names_the_shipped_studies() -> None:
    shipped = sorted(path.stem for path in Path("sweeps/studies").glob("*.yaml"))
    assert {"notebook", "quickstart", "smoke"} < set(shipped)
    with pytest.raises(Refused) as refused:
        find_study("quikstart")
    assert refused.value.mistakes == [
        "quikstart: no such file, and no study of that name; did you mean 'quickstart'? "
        f"known: {', '.join(shipped)}"
    ]


def test_yaml_1_2_numbers(tmp_path: Path) -> None:
    """2e-3 is a number, as everybody but YAML 1.1 thinks."""
    text = (
        "name: a\ndataset: {name: digits, classes: [1, 8]}\n"
        "spec: {objective: ae, training: {learning_rate: 2e-3}}\n"
    )
    study, _ = load_study(write(tmp_path, text))
    assert study.cells[0].spec.training.learning_rate == 0.002


def test_the_resolved_study_is_the_same_study(tmp_path: Path) -> None:
    study, _ = load_study(write(tmp_path, tiny()))
    again, _ = load_study(write(tmp_path, study.resolved(), "again.yaml"))
    assert again == study


THREE = {"name": "digits", "classes": [0, 1, 7]}


@pytest.mark.parametrize(
    ("changes", "metric"),
    [({}, "auc_split"), ({"dataset": THREE}, "auc_matched"), ({"metric": "nmi"}, "nmi")],
)
def test_a_study_that_names_no_metric_has_that_of_its_dataset(
    changes: dict[str, Any], metric: str, tmp_path: Path
) -> None:
    study, _ = load_study(write(tmp_path, tiny(**changes)))
    assert study.metric == study.resolved()["metric"] == metric


def test_data_without_labels_is_judged_by_agreement() -> None:
    data = Digits().load()
    assert usual_metric(data) == "auc_matched"
    assert usual_metric(dataclasses.replace(data, labels=None)) == "agreement"


def test_the_resolved_study_keeps_split_peaks_and_activations(tmp_path: Path) -> None:
    means = [[1, 1], [-1, 0.5], [0, -1]]
    cell = {
        "objective": "wae",
        "code": {"class_units": 2, "style_units": 1, "style": "normal"},
        "prior": {"kind": "mixture", "means": means, "weights": [1, 2, 3]},
        "divergence": ["mmd", "wasserstein"],
        "activation": [{"encoder": "elu", "decoder": "tanh"}, "gelu"],
    }
    study, _ = load_study(write(tmp_path, tiny(cells=[cell], split=0.75, dataset=THREE)))
    assert len(study.cells) == 4
    again, _ = load_study(write(tmp_path, study.resolved(), "again.yaml"))
    assert again == study
    assert study.cells[0].axes["activation"] == "elu/tanh"
    assert study.cells[0].axes["prior"].startswith("mixture(means=[[-1, 0.5], [0, -1], [1, 1]]")
