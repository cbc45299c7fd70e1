"""Parameters of the published configurations, equal to the authors' logs to the digit.

The logs give the number of fields and the sum of their vocabularies. Only the tables grow with a vocabulary, so a model over
tiny vocabularies tells the rest: `parameters = weights outside the tables + width of the tables * rows`.
"""

import numpy as np
import pytest

from tfctr.features import Categorical
from tfctr.layers import MLP
from tfctr.models import CETN, FCN, TF4CTR, QNNAlpha, SimMHN
from tfctr.schema import Schema

# data set: fields, rows of its tables; the versions of Criteo and of KKBox differ in their least count of a token
AVAZU, CRITEO, CRITEO_10, FRAPPE = (24, 3_750_999), (39, 5_549_252), (39, 910_747), (10, 5_383)
KKBOX, KKBOX_10, ML_1M, ML_1M_7, ML_TAG = (13, 227_853), (13, 91_756), (5, 9_626), (7, 9_751), (3, 88_596)


def parameters(data, make_model):
    fields, rows = data
    schema = Schema(features=[Categorical(f"f{i}", size=4) for i in range(fields)], label="click")
    model = make_model(schema)
    width = sum(table.embedding_dim for table in model.embeddings)
    weights = sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)
    return weights + width * (rows - schema.table_rows)


def test_the_count_of_a_table_that_exists():
    schema = Schema(features=[Categorical("a", size=7), Categorical("b", size=9)], label="click")
    expected = sum(int(np.prod(weight.shape)) for weight in CETN(schema).trainable_variables)
    assert parameters((2, 16), CETN) == expected


@pytest.mark.parametrize(
    ("data", "hidden_units", "weight_hidden_units", "activation", "batch_norm", "logged"),
    [
        (CRITEO, [1024, 512, 256], [512, 512], ["prelu", "mish", "leaky_relu"], False, 140_107_862),  # best_3, best_4
        (AVAZU, [512] * 3, [512] * 3, "leaky_relu", False, 85_120_722),
        (ML_TAG, [400], [400], ["relu", "leaky_relu", "relu"], False, 1_925_526),  # 1118, 1194
        (FRAPPE, [400, 400], [400], ["gelu", "relu", "mish"], True, 1_684_866),  # 055, 007
    ],
)
def test_cetn(data, hidden_units, weight_hidden_units, activation, batch_norm, logged):
    found = parameters(
        data,
        lambda schema: CETN(
            schema,
            hidden_units=hidden_units,
            weight_hidden_units=weight_hidden_units,
            activation=activation,
            batch_norm=batch_norm,
        ),
    )
    assert found == logged


@pytest.mark.parametrize(
    ("data", "hidden_units", "weight_hidden_units", "batch_norm", "logged"),
    [
        (CRITEO, [1024, 512, 256], [512] * 4, False, 141_682_006),
        (AVAZU, [512] * 3, [512] * 3, False, 85_120_722),
        (ML_TAG, [400] * 3, [400, 200], False, 3_127_926),
        (FRAPPE, [400, 400], [400, 400], True, 2_168_466),
    ],
)
def test_simmhn(data, hidden_units, weight_hidden_units, batch_norm, logged):
    found = parameters(
        data,
        lambda schema: SimMHN(
            schema, hidden_units=hidden_units, weight_hidden_units=weight_hidden_units, batch_norm=batch_norm
        ),
    )
    assert found == logged


@pytest.mark.parametrize(
    ("data", "selection", "fusion", "simple", "logged"),
    [
        (CRITEO_10, "separate", "weighted_sum", [400, 400], 22_719_132),  # v2_026_07feb1a7
        (KKBOX, "separate", "experts", [400, 400], 6_083_278),  # v2_034_19cd2009
        (ML_1M, "separate", "weighted_sum", [400], 604_628),  # v2_021_661e3269
        (ML_TAG, "separate", "weighted_sum", [400, 400], 2_641_908),  # v2_221_2244ac8b
        (FRAPPE, "separate", "weighted_sum", [400, 400], 711_996),  # v2_121_422294bf
        (CRITEO_10, "shared", "weighted_sum", [400, 400], 15_557_956),  # 003_17b9a09d
        (KKBOX, "shared", "weighted_sum", [400, 400], 4_298_852),  # 031_0e2e39da
        (ML_TAG, "shared", "weighted_sum", [400], 1_781_540),  # 054_0ed421b3
        (FRAPPE, "shared", "weighted_sum", [400], 539_732),  # 070_be95cddc
    ],
)
def test_tf4ctr(data, selection, fusion, simple, logged):
    found = parameters(
        data,
        lambda schema: TF4CTR(
            schema,
            selection=selection,
            fusion=fusion,
            simple_encoder=MLP(simple, batch_norm=True),
            complex_encoder=MLP([400] * 3, batch_norm=True),
        ),
    )
    assert found == logged


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("data", "dim", "linear", "exponential", "heads", "batch_norm", "logged"),
    [
        (CRITEO_10, 16, 4, 3, 1, False, 15_944_754),  # 011
        (CRITEO_10, 16, 5, 4, 1, False, 16_336_626),  # 047
        (AVAZU, 16, 5, 4, 4, True, 240_735_242),
        (KKBOX_10, 128, 2, 4, 1, True, 20_074_766),  # 039
        (KKBOX_10, 128, 5, 5, 1, True, 25_625_878),  # 102
        (ML_1M_7, 16, 4, 3, 1, True, 201_728),  # 100, 103
    ],
)
def test_fcn(data, dim, linear, exponential, heads, batch_norm, logged):
    def make_model(schema):
        return FCN(schema, heads * dim, linear, exponential, num_heads=heads, batch_norm=batch_norm)

    assert parameters(data, make_model) == logged


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("data", "dim", "layers", "products", "heads", "batch_norm", "logged"),
    [
        (CRITEO_10, 16, 4, 5, 1, False, 22_372_577),  # 001
        (CRITEO_10, 16, 4, 6, 1, False, 23_932_577),  # 002
        (FRAPPE, 16, 2, 13, 1, True, 764_369),  # 045
        (KKBOX_10, 128, 3, 3, 2, True, 36_711_425),  # 022, the record
        (KKBOX_10, 128, 2, 5, 1, True, 39_485_313),  # 013
        (ML_1M_7, 16, 1, 4, 4, True, 207_649),  # 015
    ],
)
def test_qnn_alpha(data, dim, layers, products, heads, batch_norm, logged):
    assert parameters(data, lambda schema: QNNAlpha(schema, dim, layers, products, heads, batch_norm=batch_norm)) == logged
