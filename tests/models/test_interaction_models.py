"""What IPNN, NFM, AFM, the DCNs, XDeepFM, AutoInt, AFN and FiBiNET make of their encoders, which have tests of their own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.randomized import dense, numbers, randomize

from tfctr import layers
from tfctr.errors import ConfigError
from tfctr.features import Categorical
from tfctr.models import AFM, AFN, DCN, GDCN, IPNN, NFM, AutoInt, DCNv2, FiBiNET, XDeepFM
from tfctr.schema import Schema

CROSSES = {DCN: layers.VectorCrossNetwork, DCNv2: layers.CrossNetwork, GDCN: layers.GatedCrossNetwork}
SMALL = {"embedding_dim": 3, "hidden_units": [5, 4]}


@pytest.fixture
def ids(tiny_ids):
    return tiny_ids(20)


def parts(model, *classes):
    """The model's only layer of each class."""
    found = [[layer for layer in model.layers if type(layer) is cls] for cls in classes]
    assert [len(layers_of_class) for layers_of_class in found] == [1] * len(classes)
    return [layer for (layer,) in found]


def first_order(model, ids):
    """`b + sum_i w[id_i]`."""
    (linear_terms,) = parts(model, layers.LinearTerms)
    return numbers(model.embeddings[0](ids)).sum(axis=(1, 2))[:, None] + linear_terms.bias.numpy()


def logit(model, ids):
    return numbers(model(ids)["logit"])


def close(found, expected):
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_ipnn(tiny_schema, ids):
    model = randomize(IPNN(tiny_schema, **SMALL))
    product, mlp, head = parts(model, layers.ProductLayer, layers.MLP, keras.layers.Dense)
    assert mlp.steps[1].kernel.shape[0] == 5 * 3 + 10
    close(logit(model, ids), dense(head, numbers(mlp(product(model.embeddings[0](ids))))))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_nfm(batch_norm, tiny_schema, ids):
    model = randomize(NFM(tiny_schema, **SMALL, batch_norm=batch_norm, dropout=0.5))
    pool, mlp, head = parts(model, layers.BiInteraction, layers.MLP, keras.layers.Dense)
    pooled = numbers(pool(model.embeddings[1](ids)))
    if batch_norm:
        (norm,) = parts(model, keras.layers.BatchNormalization)
        pooled = (pooled - norm.moving_mean) / np.sqrt(norm.moving_variance + 1e-5) * norm.gamma + norm.beta
    close(logit(model, ids), first_order(model, ids) + dense(head, numbers(mlp(pooled))))


def test_afm(tiny_schema, ids):
    model = randomize(AFM(tiny_schema, embedding_dim=3, attention_dim=2, dropout=0.5))
    attention, head = parts(model, layers.PairAttention, keras.layers.Dense)
    close(logit(model, ids), first_order(model, ids) + dense(head, numbers(attention(model.embeddings[1](ids)))))
    assert np.any(numbers(model(ids, training=True)["logit"]) != logit(model, ids))


@pytest.mark.parametrize("name", CROSSES)
def test_parallel_deep_and_cross(name, tiny_schema, ids):
    model = randomize(name(tiny_schema, **SMALL))
    cross, mlp, fusion = parts(model, CROSSES[name], layers.MLP, layers.SumFusion)
    fields = model.embeddings[0](ids)
    views = [numbers(cross(fields)), numbers(mlp(fields))]
    # x_final = [x_L, h_L]; w . x_final + b
    kernel = np.concatenate([head.kernel for head in fusion.heads])
    bias = sum(head.bias.numpy() for head in fusion.heads)
    close(logit(model, ids), np.concatenate(views, axis=1) @ kernel + bias)


@pytest.mark.parametrize("name", [DCNv2, GDCN])
def test_stacked_deep_and_cross(name, tiny_schema, ids):
    model = randomize(name(tiny_schema, **SMALL, structure="stacked"))
    cross, mlp, head = parts(model, CROSSES[name], layers.MLP, keras.layers.Dense)
    close(logit(model, ids), dense(head, numbers(mlp(cross(model.embeddings[0](ids))))))
    assert set(model.output) == {"logit"}


def test_dcnv2_with_a_rank_is_a_mixture(tiny_schema):
    (cross,) = parts(DCNv2(tiny_schema, num_layers=1, rank=2, num_experts=3), layers.LowRankCrossNetwork)
    assert (cross.num_layers, cross.rank, cross.num_experts) == (1, 2, 3)


def test_xdeepfm(tiny_schema, ids):
    model = randomize(XDeepFM(tiny_schema, **SMALL, cin_units=[4, 2]))
    cin, mlp, fusion = parts(model, layers.CIN, layers.MLP, layers.SumFusion)
    fields = model.embeddings[1](ids)
    heads = [dense(head, numbers(view)) for head, view in zip(fusion.heads, [cin(fields), mlp(fields)], strict=True)]
    close(logit(model, ids), first_order(model, ids) + sum(heads))


def test_autoint(tiny_schema, ids):
    options = {"num_layers": 2, "num_heads": 2, "head_dim": 3}
    model = randomize(AutoInt(tiny_schema, **SMALL, **options))
    attention, mlp, fusion = parts(model, layers.SelfAttention, layers.MLP, layers.SumFusion)
    fields = model.embeddings[0](ids)
    heads = [dense(head, numbers(view)) for head, view in zip(fusion.heads, [attention(fields), mlp(fields)], strict=True)]
    close(logit(model, ids), sum(heads))

    alone = randomize(AutoInt(tiny_schema, embedding_dim=3, hidden_units=None, **options))
    attention, head = parts(alone, layers.SelfAttention, keras.layers.Dense)
    close(logit(alone, ids), dense(head, numbers(attention(alone.embeddings[0](ids)))))


def test_afn(tiny_schema, ids):
    options = {"neurons": 4, "logarithmic_hidden_units": [6]}
    for joint, kind in [(False, layers.StackedFusion), (True, layers.SumFusion)]:
        model = randomize(AFN(tiny_schema, **SMALL, **options, joint=joint))
        network, mlp, fusion = parts(model, layers.LogarithmicNetwork, layers.MLP, kind)
        ours, its = model.embeddings
        views = [network(ours(ids)), mlp(its(ids))]
        logits = [dense(head, numbers(view)) for head, view in zip(fusion.heads, views, strict=True)]
        first, second = (1, 1) if joint else numbers(fusion.shares)
        close(logit(model, ids), first * logits[0] + second * logits[1] + (0 if joint else numbers(fusion.bias)))
        assert np.any(ours.table.numpy() != its.table.numpy())

    alone = randomize(AFN(tiny_schema, embedding_dim=3, hidden_units=None, **options))
    network, head = parts(alone, layers.LogarithmicNetwork, keras.layers.Dense)
    close(logit(alone, ids), dense(head, numbers(network(alone.embeddings[0](ids)))))


@pytest.mark.parametrize("joint", [False, True])
def test_the_networks_of_afn_learn_by_their_own_losses_unless_jointly(joint, tiny_schema, ids, tiny_labels):
    options = {"neurons": 4, "logarithmic_hidden_units": [6], "joint": joint}
    model = randomize(AFN(tiny_schema, **SMALL, **options))
    model.compile()
    labels = tiny_labels(20)[:, None]
    outputs = {name: numbers(value) for name, value in model(ids).items()}
    bce = {name: np.logaddexp(0, np.where(labels == 1, -z, z)).mean() for name, z in outputs.items()}
    with tf.GradientTape(persistent=True) as tape:
        terms = model.loss_terms(ids, labels, training=False)
        total = sum(terms.values())
    assert float(terms["ctr"]) == pytest.approx(bce["logit"], rel=1e-5)
    reached = [v for v in model.trainable_variables if tape.gradient(terms["ctr"], v) is not None]
    if joint:
        assert set(terms) == {"ctr"}
        assert len(reached) == len(model.trainable_variables)
        return
    assert set(terms) == {"ctr", "heads"}
    assert float(terms["heads"]) == pytest.approx(bce["simple"] + bce["complex"], rel=1e-5)
    (fusion,) = parts(model, layers.StackedFusion)
    assert {id(v) for v in reached} == {id(fusion.shares), id(fusion.bias)}
    assert all(tape.gradient(total, v) is not None for v in model.trainable_variables)


def test_afn_without_a_second_network_has_one_loss(tiny_schema, ids, tiny_labels):
    model = AFN(tiny_schema, embedding_dim=3, hidden_units=None, neurons=4, logarithmic_hidden_units=[6])
    model.compile()
    assert set(model.loss_terms(ids, tiny_labels(20)[:, None])) == {"ctr"}


def test_fibinet(tiny_schema, ids):
    model = randomize(FiBiNET(tiny_schema, **SMALL, products="each", bilinear="all"))
    squeeze, mlp, head = parts(model, layers.SqueezeExcitation, layers.MLP, keras.layers.Dense)
    plain, turned = (layer for layer in model.layers if type(layer) is layers.BilinearInteraction)
    assert (plain.kind, turned.kind) == ("each", "all")
    fields = model.embeddings[1](ids)
    pairs = np.concatenate([plain(fields), turned(squeeze(fields))], axis=1)
    close(logit(model, ids), first_order(model, ids) + dense(head, numbers(mlp(pairs))))


@pytest.mark.parametrize("name", [DCNv2, GDCN])
def test_unknown_structure_is_refused(name, tiny_schema):
    with pytest.raises(ConfigError, match="Did you mean 'stacked'"):
        name(tiny_schema, structure="stackd")


@pytest.mark.parametrize("name", [IPNN, NFM, AFM, DCN, DCNv2, GDCN, XDeepFM, AutoInt, AFN, FiBiNET])
def test_bad_dropout_is_refused(name, tiny_schema):
    with pytest.raises(ConfigError, match="`dropout` is"):
        name(tiny_schema, dropout=1.5)


@pytest.mark.parametrize("name", [IPNN, AFM, AutoInt, FiBiNET])
def test_models_of_pairs_refuse_one_field(name):
    schema = Schema(features=[Categorical("user", size=5)], label="click")
    with pytest.raises(ConfigError, match="1 field has no pairs"):
        name(schema)


def test_two_fields_are_enough():
    schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=5)], label="click")
    ids = np.array([[3, 8], [4, 9]], "int32")
    for name in (IPNN, NFM, AFM, FiBiNET, XDeepFM):
        assert np.isfinite(logit(name(schema), ids)).all()
