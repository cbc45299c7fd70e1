"""Columns of FuxiCTR's configurations, each beside the feature that it is by hand."""

import pytest
from kit.fuxictr_files import imported, texts

from tfctr import Categorical, Numeric, Sequence
from tfctr.errors import ConfigError

NUMERIC = {"name": "a", "dtype": "float", "type": "numeric"}
CATEGORICAL = {"name": "a", "dtype": "str", "type": "categorical"}
SEQUENCE = {"name": "a", "dtype": "str", "type": "sequence", "max_len": 4}


def feature(folder, column, **parameters):
    found = imported(folder, {"feature_cols": [column], "min_categr_count": None, **parameters}, force=True)
    return found.schema.features[0], texts(found)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (CATEGORICAL, Categorical("a")),
        (CATEGORICAL | {"min_categr_count": 5}, Categorical("a", min_count=5)),
        (CATEGORICAL | {"preprocess": "copy_from(b)"}, Categorical("a", column="b")),
        (CATEGORICAL | {"preprocess": "convert_to_bucket", "min_categr_count": 3}, Numeric("a", "log2_floor", min_count=3)),
        (CATEGORICAL | {"category_processor": "quantile_bucket", "num_buckets": 7}, Numeric("a", "quantile", buckets=7)),
        (CATEGORICAL | {"category_processor": "hash_bucket"}, Categorical("a", hash_buckets=10)),
        (CATEGORICAL | {"name": "a b"}, Categorical("a_b", column="a b")),
        (CATEGORICAL | {"name": "class"}, Categorical("class_", column="class")),
        (NUMERIC | {"normalizer": "StandardScaler"}, Numeric("a", "scaled")),
        (NUMERIC, Numeric("a", "scaled")),
        (SEQUENCE, Sequence("a", 4, separator="^")),
        (SEQUENCE | {"padding": "pre", "splitter": " "}, Sequence("a", 4, separator=" ", keep="last")),
        (SEQUENCE | {"padding": "post"}, Sequence("a", 4, separator="^", keep="first")),
        (SEQUENCE | {"feature_encoder": "layers.MaskedSumPooling()"}, Sequence("a", 4, separator="^", pooling="sum")),
        (SEQUENCE | {"feature_encoder": "layers.MaskedAveragePooling()"}, Sequence("a", 4, separator="^")),
        (SEQUENCE | {"encoder": "MaskedSumPooling", "min_categr_count": 2}, Sequence("a", 4, "^", "sum", min_count=2)),
    ],
)
def test_a_column_is_this_feature(tmp_path, column, expected):
    assert feature(tmp_path, column)[0] == expected


def test_the_dataset_has_the_minimum_and_the_buckets_of_all(tmp_path):
    assert feature(tmp_path, CATEGORICAL, min_categr_count=9)[0] == Categorical("a", min_count=9)
    hashed = CATEGORICAL | {"category_processor": "hash_bucket"}
    assert feature(tmp_path, hashed, num_buckets=33)[0] == Categorical("a", hash_buckets=33)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (CATEGORICAL, "differs: missing values: they have an embedding of their own"),
        (CATEGORICAL | {"source": "user"}, "left out: source 'user' of a: every part of a model reads all features"),
        (CATEGORICAL | {"sauce": 1}, "left out: sauce 1 of a: FuxiCTR does not read it of a categorical feature"),
        (CATEGORICAL | {"fill_na": -1}, "differs: fill_na -1 of a: a null is missing; the text '-1' is a token"),
        (CATEGORICAL | {"dtype": "int"}, "differs: fill_na of a: a null is missing; in FuxiCTR it is the token 0"),
        (CATEGORICAL | {"share_embedding": "b"}, "lost: share_embedding 'b' of a: each feature has rows of its own"),
        (CATEGORICAL | {"pretrained_emb": "b.npz"}, "lost: pretrained_emb 'b.npz' of a"),
        (CATEGORICAL | {"embedding_dim": 9}, "lost: embedding_dim 9 of a: all features are embedded in equally many numbers"),
        (
            CATEGORICAL | {"feature_encoder": "nn.Linear(4, 4)"},
            "lost: feature_encoder 'nn.Linear(4, 4)' of a: a feature",
        ),
        (CATEGORICAL | {"preprocess": "hour(at)"}, "lost: preprocess 'hour(at)' of a: it is a function of yours"),
        (CATEGORICAL | {"preprocess": "convert_to_bucket"}, "differs: preprocess 'convert_to_bucket' of a: taken for the"),
        (CATEGORICAL | {"name": "a b"}, "differs: name 'a b': a served input cannot be called so: it is a_b, of this column"),
        (NUMERIC, "differs: normalizer 'none' of a: numbers are standardized"),
        (NUMERIC | {"normalizer": "MinMaxScaler"}, "differs: normalizer 'MinMaxScaler' of a: numbers are standardized"),
        (NUMERIC, "differs: fill_na of a: missing numbers have a vector of their own"),
        (NUMERIC | {"fill_na": 0}, "differs: fill_na 0 of a: missing numbers have a vector of their own"),
        (NUMERIC | {"preprocess": "convert_to_bucket"}, "lost: preprocess 'convert_to_bucket' of a"),
        (SEQUENCE | {"feature_encoder": None}, "lost: feature_encoder 'null' of a: a sequence is pooled by its mean or sum"),
        (SEQUENCE, "differs: sequences: the linear terms"),
    ],
)
def test_what_is_not_the_same_is_told(tmp_path, column, said):
    assert any(text.startswith(said) for text in feature(tmp_path, column)[1])


def test_a_column_that_is_the_same_is_not_told_of(tmp_path):
    _, said = feature(tmp_path, CATEGORICAL | {"embedding_dim": 4, "preprocess": "copy_from(b)"})
    assert not any(" of a" in text and "dtype" not in text for text in said)


def test_which_columns_are_features(tmp_path):
    columns = [
        CATEGORICAL | {"name": ["a", "b", "c"]},
        CATEGORICAL | {"name": "d", "active": False},
        {"name": "e", "dtype": "str", "type": "meta"},
        {"name": "f", "dtype": "list", "type": "embedding", "pretrain_dim": 9},
    ]
    found = imported(tmp_path, {"feature_cols": columns}, force=True)
    assert [feature.name for feature in found.schema.features] == ["a", "b", "c"]
    assert "left out: type 'meta' of e: no model reads it, and `group_id` does not name it" in texts(found)
    assert "lost: type 'embedding' of f: a column of ready vectors is no feature" in texts(found)
    specs = {"use_features": ["c", "a"], "feature_specs": [{"name": ["a", "c"], "min_categr_count": 8}]}
    found = imported(tmp_path, {"feature_cols": columns}, specs, force=True)
    assert found.schema.features == (Categorical("c", min_count=8), Categorical("a", min_count=8))
    assert found.schema.group == "buyer"


def test_a_group_that_is_a_copy_is_its_column(tmp_path):
    columns = [CATEGORICAL, CATEGORICAL | {"name": "b", "preprocess": "copy_from(user)"}]
    assert imported(tmp_path, {"feature_cols": columns, "group_id": "b"}).schema.group == "user"
    assert imported(tmp_path, {"feature_cols": columns, "group_id": "a"}).schema.group == "a"


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"feature_cols": None}, "no `feature_cols`"),
        ({"feature_cols": [{"type": "numeric"}]}, "an entry without a name"),
        ({"feature_cols": ["a"]}, "an entry without a name"),
        ({"feature_cols": [CATEGORICAL | {"type": "categorial"}]}, "Did you mean 'categorical'"),
        ({"feature_cols": [{"name": "a"}]}, "Unknown type of feature 'a' None"),
        ({"feature_cols": [{"name": "a", "type": "sequence"}]}, "feature 'a': `max_len` is not given"),
        ({"feature_cols": [SEQUENCE | {"padding": "behind"}]}, "Unknown padding of feature 'a' 'behind'"),
        ({"feature_cols": [SEQUENCE | {"splitter": "||"}]}, "feature 'a': `separator`"),
        ({"feature_cols": [CATEGORICAL | {"category_processor": "hash_bucke"}]}, "Did you mean 'hash_bucket'"),
        ({"label_col": None}, "no `label_col`"),
        ({"label_col": {"dtype": "float"}}, "`label_col` has no `name`"),
        ({"label_col": {"name": "shop"}}, "column 'shop' has two roles"),
        ({"label_col": [{"name": "x"}, {"name": "y"}]}, "label_col 2: there is one label"),
        ({"use_features": ["shops"]}, "use_features: there is no column 'shops'.*\n.*Did you mean 'shop'"),
        ({"feature_specs": [{"name": "shops", "min_categr_count": 1}]}, "feature_specs: there is no column 'shops'"),
    ],
)
def test_columns_that_cannot_be_read_are_errors(tmp_path, parameters, match):
    with pytest.raises(ConfigError, match=match):
        imported(tmp_path, parameters)


def test_labels(tmp_path):
    found = imported(tmp_path, {"label_col": [{"name": "x", "dtype": "float", "fill_na": 0}]})
    assert found.schema.label == "x"
    assert "differs: label_col.fill_na 0: a row without a label is refused" in texts(found)
    with pytest.raises(ConfigError, match=r"label_col.preprocess 'f': make the label before"):
        imported(tmp_path, {"label_col": {"name": "x", "preprocess": "f"}})
