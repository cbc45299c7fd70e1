"""The crosses, inner products and brute-force search of TensorFlow Recommenders, where it is installed, give the same numbers.

It knows Keras 2 alone, so it computes in a process of its own, which gets our weights and gives back what it makes of them.
"""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from kit.places import ROOT
from kit.randomized import draw, randomize

from tfctr.layers import CrossNetwork, LowRankCrossNetwork, ProductLayer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("tensorflow_recommenders") is None, reason="the extra `retrieval` is absent"),
]
VIEW = draw(7, 4, 3)
QUERIES, CANDIDATES = draw(5, 6, seed=1), draw(40, 6, seed=2)

THEIRS = """
import sys
import numpy as np
from tfctr.retrieval import load_tfrs

layers, given = load_tfrs().layers, dict(np.load(sys.argv[1]))

def chain(name, **options):
    x = x0 = given["view"].reshape(7, 12)
    for step in range(3):
        cross = layers.dcn.Cross(**options)
        cross(x0, x)
        cross.set_weights([given[f"{name} {step} {part}"] for part in range(len(cross.weights))])
        x = cross(x0, x)
    return x

score, place = layers.factorized_top_k.BruteForce(k=9).index(given["candidates"])(given["queries"])
dot = layers.feature_interaction.DotInteraction()([given["view"][:, field] for field in range(4)])
np.savez(sys.argv[2], full=chain("full"), low=chain("low", projection_dim=5), dot=dot, score=score, place=place)
"""


@pytest.fixture(scope="module")
def ours():
    """A full-rank and a low-rank cross network, drawn."""
    full, low = CrossNetwork(3), LowRankCrossNetwork(3, rank=5, num_experts=1, activation="linear")
    for network in (full, low):
        network.build(VIEW.shape)
        randomize(network)
    for core in low.cores:
        core.assign([np.eye(5)])
    return full, low


@pytest.fixture(scope="module")
def theirs(ours, tmp_path_factory):
    """What TensorFlow Recommenders makes of the same weights and numbers, by name."""
    full, low = ours
    steps = {"full": [cross.get_weights() for cross in full.crosses]}
    steps["low"] = [[*down.get_weights(), *up.get_weights()] for down, up in zip(low.downs, low.ups, strict=True)]
    weights = {
        f"{name} {step} {part}": np.squeeze(weight)
        for name, some in steps.items()
        for step, parts in enumerate(some)
        for part, weight in enumerate(parts)
    }
    folder = tmp_path_factory.mktemp("theirs")
    np.savez(folder / "given.npz", view=VIEW, queries=QUERIES, candidates=CANDIDATES, **weights)
    command = [sys.executable, "-c", THEIRS, str(folder / "given.npz"), str(folder / "found.npz")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return dict(np.load(folder / "found.npz"))


def test_cross_network(ours, theirs):
    np.testing.assert_allclose(ours[0](VIEW), theirs["full"], rtol=1e-5, atol=1e-5)


def test_low_rank_cross_network(ours, theirs):
    np.testing.assert_allclose(ours[1](VIEW), theirs["low"], rtol=1e-5, atol=1e-5)


def test_inner_products(theirs):
    below = [(i, j) for i in range(4) for j in range(i)]  # its order of the pairs
    order = [below.index((j, i)) for i in range(4) for j in range(i + 1, 4)]
    np.testing.assert_allclose(ProductLayer()(VIEW)[:, 12:], theirs["dot"][:, order], rtol=1e-5, atol=1e-6)


def test_brute_force_search(theirs):
    scores = QUERIES @ CANDIDATES.T
    places = np.argsort(-scores, axis=1, kind="stable")[:, :9]
    assert (theirs["place"] == places).all()
    np.testing.assert_allclose(theirs["score"], np.take_along_axis(scores, places, axis=1), rtol=1e-5, atol=1e-6)
