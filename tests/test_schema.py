"""A schema is read, written and refused; a fitted one says where each feature lies."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tfctr.errors import ConfigError, StorageError
from tfctr.features import FIRST_KNOWN, POOLINGS, TRANSFORMS, Categorical, Numeric, Sequence
from tfctr.schema import Schema

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-/]{0,8}_", fullmatch=True)  # no Python keyword ends with _
COUNTS = st.integers(1, 1_000_000)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
EDGES = st.lists(FLOATS, min_size=1, max_size=5, unique=True).map(sorted).map(tuple)
SIZES = st.none() | st.integers(4, 10**9)


def tokens(**arguments):
    digests = st.none() | st.sampled_from(["0" * 64, "1e" + "5" * 62])  # text also where YAML could read a number
    known = st.builds(dict, min_count=COUNTS, vocabulary_sha256=digests, **arguments)
    hashed = st.builds(dict, hash_buckets=COUNTS, **arguments)
    return known | hashed.map(lambda drawn: drawn | {"size": drawn["size"] and drawn["hash_buckets"] + FIRST_KNOWN})


def numbers(transform, **arguments):
    return st.builds(Numeric, name=NAMES, transform=st.just(transform), size=SIZES, **arguments)


FEATURES = st.one_of(
    tokens(name=NAMES, size=SIZES).map(lambda arguments: Categorical(**arguments)),
    tokens(
        name=NAMES,
        size=SIZES,
        max_length=COUNTS,
        separator=st.sampled_from("|,; \t\x01\x7f'\"é"),
        pooling=st.sampled_from(POOLINGS),
    ).map(lambda arguments: Sequence(**arguments)),
    numbers("log2_floor", min_count=COUNTS, edges=st.tuples(FLOATS), interval_ids=st.none() | st.just((2, 3))),
    numbers("quantile", buckets=st.integers(2, 100), edges=st.none() | EDGES, column=st.none() | st.text()),
    numbers("edges", edges=EDGES),
    numbers("scaled", mean=st.none() | FLOATS, scale=st.none() | FLOATS.map(abs).filter(bool)),
)
SCHEMAS = st.lists(
    FEATURES, min_size=1, max_size=4, unique_by=lambda feature: re.sub(r"\W", "_", feature.name).lower()
).flatmap(
    lambda features: st.builds(
        Schema,
        features=st.just(features),
        label=st.just("label column"),
        group=st.none() | st.just("user id") | st.just(features[0].name),
        weight=st.none() | st.just("wéight"),
    )
)


@pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
@given(schema=SCHEMAS)
def test_file_round_trip(tmp_path_factory, suffix, schema):
    folder = tmp_path_factory.getbasetemp()
    schema.save(folder / f"schema.{suffix}")
    loaded = Schema.load(folder / f"schema.{suffix}")
    assert loaded.to_dict() == schema.to_dict()
    assert loaded.features == schema.features
    assert (loaded.label, loaded.group, loaded.weight) == (schema.label, schema.group, schema.weight)
    assert loaded.folder == str(folder.resolve())
    assert Schema.from_config(loaded.get_config()) == loaded


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_numbers_with_an_exponent_stay_numbers(tmp_path, suffix):
    (tmp_path / "schema.yaml").write_text(
        "{label: click, features: [{name: price, type: numeric, transform: edges, edges: [1e-7, 1e16]}]}"
    )
    Schema.load(tmp_path / "schema.yaml").save(tmp_path / f"copy.{suffix}")
    assert Schema.load(tmp_path / f"copy.{suffix}").features[0].edges == (1e-7, 1e16)


def test_names_that_look_like_numbers_stay_names(tmp_path):
    schema = Schema(features=[Categorical(name) for name in ("1e5", "12", "0x1F", "true", "null", "2001-01-01")], label="3e4")
    for suffix in ("yaml", "json"):
        schema.save(tmp_path / f"schema.{suffix}")
        assert Schema.load(tmp_path / f"schema.{suffix}").to_dict() == schema.to_dict()


def test_a_file_holds_only_what_differs_from_the_defaults(tmp_path):
    schema = Schema(features=[Categorical("user"), Sequence("genres", max_length=3)], label="click")
    schema.save(tmp_path / "schema.yaml")
    assert yaml.safe_load((tmp_path / "schema.yaml").read_text()) == {
        "label": "click",
        "features": [{"name": "user", "type": "categorical"}, {"name": "genres", "type": "sequence", "max_length": 3}],
    }


# where a feature lies


def test_fields_by_hand(tiny_schema):
    # sizes 7, 12, 8, 4, 7; the sequence takes three columns
    assert [(field.feature.name, field.columns, field.offset) for field in tiny_schema.fields] == [
        ("user", slice(0, 1), 0),
        ("item", slice(1, 2), 7),
        ("genres", slice(2, 5), 19),
        ("age", slice(5, 6), 27),
        ("price", slice(6, 7), 31),
    ]
    assert (tiny_schema.width, tiny_schema.table_rows, tiny_schema.is_fitted) == (7, 38, True)


def test_an_unfitted_schema_has_no_places():
    schema = Schema(features=[Categorical("user", size=5), Categorical("item")], label="click")
    assert (schema.is_fitted, schema.width) == (False, 2)
    for name in ("fields", "table_rows"):
        with pytest.raises(ConfigError, match="not fitted"):
            getattr(schema, name)


def test_vocabulary_files(tiny_schema):
    user = tiny_schema.features[0]
    assert tiny_schema.vocabulary_file(user).read_text(encoding="utf-8").split() == ["60", "7", "Zoë", "東京"]
    nested = Categorical("page/query")
    schema = Schema(features=[nested], label="click", folder="DATA")
    assert schema.vocabulary_file(nested).parts == ("DATA", "vocabulary", "page%2Fquery.txt")
    with pytest.raises(StorageError, match="does not know where its vocabulary files are"):
        Schema(features=[nested], label="click").vocabulary_file(nested)


# the ids that other tests are given


def test_tiny_ids_are_valid(tiny_schema, tiny_ids, tiny_labels):
    ids = tiny_ids(2_000, seed=1)
    assert (ids.shape, ids.dtype.name) == ((2_000, tiny_schema.width), "int32")
    for field in tiny_schema.fields:
        values = ids[:, field.columns] - field.offset
        if field.feature.name == "age":
            continue
        least = 0 if isinstance(field.feature, Sequence) else 1
        assert set(values.ravel().tolist()) == set(range(least, field.feature.size))
    genres = ids[:, tiny_schema.fields[2].columns] - tiny_schema.fields[2].offset
    lengths = (genres > 0).sum(axis=1)
    assert all((genres[row, :length] > 0).all() for row, length in enumerate(lengths))
    assert set(lengths[genres[:, 0] == 1]) == {1}
    assert not (genres[:, 1:] == 1).any()
    age = ids[:, 5].view("float32")
    assert 0 < (age != age).mean() < 0.2
    assert abs(age[age == age].std() - 1) < 0.1
    assert (tiny_ids(50, seed=1) == tiny_ids(50, seed=1)).all()
    assert 0.3 < tiny_labels(2_000, seed=1).mean() < 0.7


# what is refused


@pytest.mark.parametrize("name", ["user", "0", "I1", "a.b-c/d_e", "a.", "a-", "User"])
def test_names_that_can_be_served(name):
    assert Categorical(name).name == name


@pytest.mark.parametrize(
    "name", ["", " user", "user id", "_user", ".user", "/user", "user/", "usér", "user\n", "class", "None", "self", None, 3]
)
@pytest.mark.parametrize("make", [Categorical, Numeric, lambda name: Sequence(name, max_length=2)])
def test_names_that_cannot_be_served(make, name):
    with pytest.raises(ConfigError, match="cannot be the name of a served input"):
        make(name)


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, None])
@pytest.mark.parametrize(
    "make",
    [
        lambda value: Categorical("user", min_count=value),
        lambda value: Sequence("genres", max_length=value),
        lambda value: Numeric("price", min_count=value),
        lambda value: Numeric("price", "quantile", buckets=value or 0),
        lambda value: Categorical("user", hash_buckets=value or 0),
    ],
)
def test_counts_are_whole_numbers(make, value):
    with pytest.raises(ConfigError, match=r"feature '(user|genres|price)': .*`(min_count|max_length|buckets|hash_buckets)` is"):
        make(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Categorical("user", min_count=2, hash_buckets=9), "`min_count` has no meaning beside `hash_buckets`"),
        (lambda: Sequence("genres", max_length=3, separator="||"), "`separator` is '||'"),
        (lambda: Sequence("genres", max_length=3, separator=""), "`separator` is ''"),
        (lambda: Sequence("genres", max_length=3, pooling="max"), "Unknown pooling of feature 'genres' 'max'"),
        (lambda: Sequence("genres", max_length=3, keep="newest"), "Unknown `keep` of feature 'genres' 'newest'"),
        (lambda: Numeric("price", "log"), "Unknown transform of feature 'price' 'log'"),
        (lambda: Numeric("price", "scaled", min_count=2), "`min_count` has a meaning for the transform 'log2_floor' only"),
        (lambda: Numeric("price", "scaled", buckets=5), "`buckets` is 5 with the transform 'scaled'"),
        (lambda: Numeric("price", "quantile", buckets=1), "`buckets` is 1"),
        (lambda: Numeric("price", "edges"), "needs `edges`"),
        (lambda: Numeric("price", "edges", edges=[]), "needs `edges`"),
        (lambda: Numeric("price", "scaled", edges=[1.0]), "`edges` have no meaning for the transform 'scaled'"),
        (lambda: Numeric("price", "edges", edges=5), "`edges` is 5"),
        (lambda: Numeric("price", "edges", edges="12"), "`edges` is '12'"),
        (lambda: Numeric("price", "edges", edges=[2, 1]), "finite and strictly ascending"),
        (lambda: Numeric("price", "edges", edges=[1, 1]), "finite and strictly ascending"),
        (lambda: Numeric("price", "edges", edges=[float("nan")]), "finite and strictly ascending"),
        (lambda: Numeric("price", "edges", edges=[1, float("inf")]), "finite and strictly ascending"),
        (lambda: Numeric("price", "edges", edges=[10**400]), "finite and strictly ascending"),
        (lambda: Numeric("price", "edges", edges=["1"]), "finite and strictly ascending"),
        (lambda: Schema(features=[], label="click"), "has no features"),
        (lambda: Schema(features=["user"], label="click"), "'user' is not a feature"),
        (lambda: Schema(features=[Categorical("a"), Numeric("a")], label="click"), "'a' has two roles"),
        (lambda: Schema(features=[Categorical("click")], label="click"), "'click' has two roles"),
        (lambda: Schema(features=[Categorical("a")], label="click", weight="click"), "'click' has two roles"),
        (lambda: Schema(features=[Categorical("a")], label="click", group="click"), "'click' has two roles"),
        (lambda: Schema(features=[Categorical("a")], label="click", weight="w", group="w"), "'w' has two roles"),
        (lambda: Schema(features=[Categorical("User"), Numeric("user")], label="click"), "'User' and 'user' would be one"),
        (lambda: Schema(features=[Categorical("a.b"), Numeric("a_b")], label="click"), "'a.b' and 'a_b' would be one"),
        (lambda: Schema(features=[Categorical("1"), Numeric("arg_1")], label="click"), "'1' and 'arg_1' would be one"),
        (lambda: Schema(features=[Categorical("a")], label=None), "`label` is None"),
        (lambda: Schema(features=[Categorical("a")], label=True), "`label` is True"),
        (lambda: Schema(features=[Categorical("a")], label="click", group=""), "`group` is ''"),
        (lambda: Schema(features=[Categorical("a")], label="click", weight=3), "`weight` is 3"),
    ],
)
def test_impossible_schemas_are_refused(make, message):
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in caught.value.problem
    assert caught.value.fix


def test_a_feature_may_be_the_group():
    assert Schema(features=[Categorical("user")], label="click", group="user").group == "user"


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("lable: click", "unknown key 'lable' in the schema", "Did you mean 'label'?"),
        ("features: []", "the schema has no `label`", "add `label`"),
        ("label: click", "the schema has no `features`", "add `features`"),
        ("", "a schema is a mapping. Received: None", "examples"),
        ("- click", "a schema is a mapping", "examples"),
        ("1: 2", "unknown key 1", "Expected one of: features, group, label, weight"),
        ("{label: click, features: {name: user}}", "`features` is not a list", "- name"),
        ("{label: click, features: [user]}", "a feature needs a `name` and a `type`. Received: 'user'", "categorical"),
        ("{label: click, features: [{name: user}]}", "a feature needs a `name` and a `type`", "categorical"),
        (
            "{label: click, features: [{name: user, type: categoric}]}",
            "Unknown type of feature 'user' 'categoric'",
            "'categorical'",
        ),
        ("{label: click, features: [{name: user, type: [a]}]}", "Unknown type of feature 'user'", "categorical"),
        ("{label: click, features: [{name: g, type: sequence}]}", "feature 'g' has no `max_length`", "add `max_length`"),
        (
            "{label: click, features: [{name: g, type: sequence, max_length: 3, pooing: sum}]}",
            "unknown key 'pooing' in feature 'g'",
            "Did you mean 'pooling'?",
        ),
        ("{label: click, features: [{name: u, type: categorical, pooling: sum}]}", "unknown key 'pooling'", "min_count"),
        ("{label: click, label: buy, features: []}", "the key 'label' is given twice", "correct the file"),
        ("!!python/object:os.system {}", "could not determine a constructor", "correct the file"),
    ],
)
def test_files_are_refused_by_name(tmp_path, text, problem, fix):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Schema.load(tmp_path / "mine.yaml")
    assert str(tmp_path / "mine.yaml") in caught.value.problem
    assert problem in caught.value.problem
    assert fix in caught.value.fix


@pytest.mark.parametrize("make", [Schema.from_dict, lambda values: Schema.from_dict({"label": "click", "features": [values]})])
def test_what_is_no_schema_is_quoted_in_short(make):
    with pytest.raises(ConfigError) as caught:
        make(["much"] * 100_000)
    assert "Received: ['much', " in caught.value.problem
    assert len(caught.value.problem) < 200


def test_every_transform_and_pooling_is_documented():
    assert all(f'`"{name}"`' in Numeric.__doc__ for name in TRANSFORMS)
    assert all(f'`"{name}"`' in Sequence.__doc__ for name in POOLINGS)


def test_a_column_that_cannot_be_served_has_a_name_beside_it():
    married = Categorical("marital_status", column="Marital status?")
    schema = Schema(features=[married, Categorical("age"), Numeric("years", "scaled", column="age")], label="a label")
    assert [feature.source for feature in schema.features] == ["Marital status?", "age", "age"]
    assert Schema.from_dict(schema.to_dict()) == schema
    assert schema.to_dict()["features"][0] == {"name": "marital_status", "type": "categorical", "column": "Marital status?"}
    with pytest.raises(ConfigError, match="column 'a label' has two roles"):
        Schema(features=[Categorical("x", column="a label")], label="a label")
    with pytest.raises(ConfigError, match="feature 'x': `column` is 3"):
        Categorical("x", column=3)


def test_quantiles_have_default_buckets():
    assert Numeric("price", "quantile") == Numeric("price", "quantile", buckets=50)
    assert Numeric("price", "scaled").buckets is None
