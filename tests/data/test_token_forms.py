"""One canonical text for each token: what the forms are, and that both faces read every writing alike."""

import decimal
import logging
import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import tfctr
from tfctr.errors import ConfigError, DataError
from tfctr.features import Categorical, Sequence
from tfctr.schema import Schema
from tfctr.serving.exporting.golden import golden_rows
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.token_text import FORMS, TOKEN_TYPES

TRAIN = {
    "whole": ["9", "7.0", "0", "-3", "10000169349117863715"],
    "number": ["0.5", "9", "-1.25", "1e-07", "0"],
    "boolean": ["True", "false", "TRUE", "1", "0.0"],
    "text": ["9", "9.0", "007", "True", "a"],
}
KINDS = [Categorical, Sequence]


def prepared(folder, train, feature, **tables):
    """The dataset of one feature `x`; a table is its list of values."""
    tables = {name: with_clicks({"x": values}) for name, values in {"train": train, **tables}.items()}
    return tfctr.prepare(Schema([feature], label="click"), out=folder / "data", **tables)


def with_clicks(columns):
    return {**columns, "click": [row % 2 for row in range(len(next(iter(columns.values()))))]}


def vocabulary(dataset):
    return dataset.schema.vocabulary_file(dataset.schema.features[0]).read_text().splitlines()


def form_of(dataset):
    return dataset.schema.features[0].token_type


@pytest.mark.sampled(7)
@pytest.mark.parametrize(
    ("tokens", "token_type", "known"),
    [
        (["9.0", "9", " 9", "+9", "9."], "whole", ["9"]),
        (["-0", "0.0", "0"], "whole", ["0"]),
        (["10000169349117863715", "10000169349117863716"], "whole", ["10000169349117863715", "10000169349117863716"]),
        (["007", "012"], "whole", ["12", "7"]),
        (["9", "nan", " ", None], "whole", ["9"]),
        (["True", "false", "TRUE"], "boolean", ["true", "false"]),
        (["True", "0", "1.0"], "boolean", ["true", "false"]),
        ([True, False, None], "boolean", ["false", "true"]),
        ([1, 0], "whole", ["0", "1"]),
        (["0.50", "7", "7.0"], "number", ["7", "0.5"]),
        ([0.5, 1.0, 1e-7], "number", ["0.5", "1", "1e-07"]),
        ([0.1 + 0.2, 0.3], "number", ["0.3", "0.30000000000000004"]),
        ([decimal.Decimal("1.50"), decimal.Decimal("2")], "number", ["1.5", "2"]),
        (np.float32([0.1, 0.25]), "number", ["0.1", "0.25"]),
        (["7e091613", "1e999999"], "text", ["1e999999", "7e091613"]),
        (["9.0", "a"], "text", ["9.0", "a"]),
        (["True", "7"], "text", ["7", "True"]),
        (["2024-01-01", "2024-1-1"], "text", ["2024-01-01", "2024-1-1"]),
        ([None, None], "text", []),
        ([2**53 + 1, 2**53, None], "whole", ["9007199254740992", "9007199254740993"]),
        ([2**63 + 1, 2**64], "whole", ["18446744073709551616", "9223372036854775809"]),
        ([2**53 + 1, 0.5], "number", ["0.5", "9007199254740993"]),
    ],
)
def test_the_form_is_learnt_from_the_training_tokens(tmp_path, tokens, token_type, known):
    dataset = prepared(tmp_path, tokens, Categorical("x"))
    assert (form_of(dataset), vocabulary(dataset)) == (token_type, known)


@pytest.mark.parametrize("codes", [("007", "7"), ("1.10", "1.1"), ("00", "0")])
def test_codes_are_text_and_the_log_says_so(tmp_path, codes, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = prepared(tmp_path, [*codes, *codes], Categorical("x"))
    assert form_of(dataset) == "text"
    assert set(vocabulary(dataset)) == set(codes)
    assert all(repr(code) in caplog.text for code in codes)


@pytest.mark.parametrize(
    ("feature", "values", "ids"),
    [
        (Categorical("x"), ["9", "007", "+9.0", "8", " ", "9a", "True"], [[3], [4], [3], [2], [1], [2], [2]]),
        (Categorical("x"), [9.0, 7.0, None], [[3], [4], [1]]),
        (Categorical("x"), [9, 7, True], [[3], [4], [2]]),
        (
            Sequence("x", 3),
            ["9|7.0", " 9|| 7", "", "['9', 7.0]", "[9 7]", "[]"],
            [[3, 4, 0], [3, 4, 0], [1, 0, 0], [3, 4, 0], [3, 4, 0], [1, 0, 0]],
        ),
        (Sequence("x", 3), [[7, None, 9.0], [], None], [[4, 3, 0], [1, 0, 0], [1, 0, 0]]),
    ],
)
def test_a_later_table_is_read_by_the_form(tmp_path, feature, values, ids):
    assert prepared(tmp_path, ["9.0", "7.0", "9.0"], feature, test=values).test.ids.tolist() == ids


@pytest.mark.parametrize("token_type", TOKEN_TYPES)
def test_a_form_can_be_forced(tmp_path, token_type):
    dataset = prepared(tmp_path, ["1.0", "1", "true", "x"], Categorical("x", token_type=token_type))
    known = {"text": ["1", "1.0", "true", "x"], "whole": ["1", "x"], "number": ["1", "x"], "boolean": ["true", "x"]}
    assert (form_of(dataset), vocabulary(dataset)) == (token_type, known[token_type])


def test_an_unknown_form_is_refused():
    with pytest.raises(ConfigError, match=r"(?s)token_type of feature 'x'.*'number'"):
        Categorical("x", token_type="numbr")


def test_a_fraction_where_the_training_table_has_whole_numbers_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"the test table: column 'x', row 2: found '1\.5'"):
        prepared(tmp_path, [1, 2], Categorical("x"), test=[1.0, 1.5])


@pytest.mark.parametrize(
    "text", ["[['a'], ['b']]", r'["caf\u00e9"]', "['a', 'it\\'s']", "[Sci Fi, Drama]", "{'a': 1}", "['a']|['b']"]
)
def test_a_list_as_text_that_cannot_be_read_is_refused(tmp_path, text):
    with pytest.raises(DataError, match=r"column 'x', row 2: found .*\n  fix: give lists, or text with '\|' between"):
        prepared(tmp_path, ["a", text], Sequence("x", 3))


@pytest.mark.sampled(10)
@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("['a', 'b']", ["a", "b"]),
        ('["a","b"]', ["a", "b"]),
        ("['a' 'b']", ["a", "b"]),
        ("[a, b]", ["a", "b"]),
        ("('a',)", ["a"]),
        ("{'a', 'b'}", ["a", "b"]),
        ("['a, b', \"it's\"]", ["a, b", "it's"]),
        ("['a', None, nan]", ["a"]),
        ("[None-x, b]", ["None-x", "b"]),
        ("['a' 'b' None]", ["a", "b"]),
        ("[]", []),
        ("[ ]", []),
        ("[tag]", ["[tag]"]),
        ("(500) Days, The (2009)", ["(500) Days, The (2009)"]),
        ("[a] [b]", ["[a] [b]"]),
    ],
)
@pytest.mark.parametrize("separator", ["|", "\\", ";"])
def test_a_list_as_text_is_that_list(tmp_path, text, known, separator):
    dataset = prepared(tmp_path, [text, "c"], Sequence("x", 3, separator=separator))
    assert vocabulary(dataset) == sorted([*known, "c"])
    online = RawFeatures(dataset.schema)({"x": tf.constant([text, "c"])}).numpy()
    np.testing.assert_array_equal(online, dataset.train.ids)


def test_lists_of_several_types_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="column 'x'"):
        prepared(tmp_path, [["a"], 2], Sequence("x", 3))


# both faces

LOOKS = ["9", "9.0", "9.", " 9", "09", "+9", "-9", "-0", ".5", "0.50", "1e-07", "1E-7", "1e-7", "1e7", "1e999999", "7e091613"]
LOOKS += [
    "True",
    "TRUE",
    "false",
    "1",
    "1.0",
    "0",
    "nan",
    "NaN",
    " ",
    "",
    "\t7\n",
    "7\n",
    "٧",
    "9" * 40,
    "0" * 40,
    "--9",
    "9.0.0",
]
LOOKS += [
    "10000169349117863715",
    "10000169349117863715.0",
    "0x9",
    "9,0",
    "-1.2500",
    "-.5",
    "a",
    "\0" + "9",
    "9\0",
    "inf",
    "['9']",
]
FIELDS = {
    f"{kind}_{name}{'_hashed' * hashed}": (kind, name, hashed)
    for kind in ("one", "many")
    for name in TRAIN
    for hashed in (False, True)
}


def feature(name, kind, token_type, hashed):
    buckets = {"hash_buckets": 97} if hashed else {}
    return Categorical(name, **buckets) if kind == "one" else Sequence(name, max_length=3, separator=";", **buckets)


tokens = st.sampled_from(LOOKS) | st.text(max_size=6) | st.floats(allow_nan=False).map(repr) | st.integers().map(str)
tokens |= st.text("0123456789+-. eE", max_size=8) | st.from_regex(r"\A\s*[+-]?0*[0-9]{0,3}\.?[0-9]{0,3}0*\s*\Z")
several = st.lists(tokens, max_size=4).map(";".join)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Drawn columns, the dataset that has them as its test split, and what the graph makes of them."""
    rows = []

    @settings(max_examples=150, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
    @given(st.fixed_dictionaries({name: tokens if field[0] == "one" else several for name, field in FIELDS.items()}))
    def draw(row):
        rows.append(row)

    draw()
    schema = Schema([feature(name, *field) for name, field in FIELDS.items()], label="click")
    train = with_clicks({name: TRAIN[field[1]] for name, field in FIELDS.items()})
    columns = {name: [row[name] for row in rows] for name in FIELDS}
    dataset = tfctr.prepare(schema, train=train, test=with_clicks(columns), out=tmp_path_factory.mktemp("both") / "data")
    raw = RawFeatures(dataset.schema)
    graph = tf.function(raw.__call__, input_signature=[raw.signature], autograph=False)
    return columns, dataset, graph({name: tf.constant(values) for name, values in columns.items()}).numpy()


def test_the_forms_of_the_drawn_columns(both):
    found = {feature.name: feature.token_type for feature in both[1].schema.features}
    assert found == {name: field[1] for name, field in FIELDS.items()}


def test_both_faces_read_any_token_alike(both):
    columns, dataset, online = both
    for field in dataset.schema.fields:
        one, other = dataset.test.ids[:, field.columns], online[:, field.columns]
        different = np.flatnonzero((one != other).any(axis=1))
        assert not different.size, (field.feature.name, columns[field.feature.name][different[0]])


def plain(token_type, token):
    """The canonical token in plain Python, by what its number is; None where it is missing."""
    text = token.strip("\t\n\f\r ")
    if token_type == "text":
        return token or None
    if text.lower() in ("", "nan"):
        return None
    truth = {"true": "1", "false": "0"}.get(text.lower(), text)
    whole = r"[0-9]+\.?[0-9]*"
    if not re.fullmatch(rf"[+-]?({whole}|\.[0-9]+)" if token_type == "number" else rf"[+-]?{whole}", truth):
        return token
    with decimal.localcontext(prec=200):
        number = decimal.Decimal(truth.rstrip(".") if truth.endswith(".") else truth)
        if token_type == "boolean":
            return {0: "false", 1: "true"}.get(number, token)
        if token_type == "whole" and number != number.to_integral_value():
            return token
        written = f"{number.normalize() + 0:f}" if abs(number) >= decimal.Decimal("1e-4") or not number else repr(float(number))
    return "0" if written in ("-0", "0") else written


def test_each_token_means_its_number(both):
    columns, dataset, online = both
    for field in dataset.schema.fields:
        kind, token_type, hashed = FIELDS[field.feature.name]
        if kind == "many" or hashed:
            continue
        file = dataset.schema.vocabulary_file(field.feature)
        known = {token: 3 + line for line, token in enumerate(file.read_text().splitlines())}
        for value, id in zip(columns[field.feature.name], online[:, field.column] - field.offset, strict=True):
            token = plain(token_type, value)
            if re.fullmatch(r"\s*[+-]?[0-9.]+[eE]-[0-9]+\s*", value):
                continue  # small numbers, whose writings are tested above
            assert id == (1 if token is None else known.get(token, 2)), (token_type, value)


@pytest.mark.parametrize("token_type", FORMS)
@given(token=tokens)
def test_a_canonical_token_stays(token_type, token):
    once = token
    for _ in range(2):
        before = once
        for pattern, replacement in FORMS[token_type].rewrites:
            once = tf.strings.regex_replace(once, pattern, replacement)
    assert once == before
    if re.fullmatch(FORMS[token_type].canonical, token):
        assert once == token


def test_a_schema_of_before_has_no_form_and_reads_text(tmp_path):
    values = {"label": "click", "features": [{"name": "x", "type": "categorical", "size": 5}]}
    schema = Schema.from_dict(values, folder=str(tmp_path))
    assert schema.to_dict() == values
    file = schema.vocabulary_file(schema.features[0])
    file.parent.mkdir()
    file.write_text("9\n9.0\n")
    assert RawFeatures(schema)({"x": tf.constant(["9", "9.0", " 9"])}).numpy().tolist() == [[3], [4], [2]]


def test_text_pays_nothing_in_the_graph(tmp_path):
    schema = Schema([Categorical("x", hash_buckets=9, size=12, token_type="text")], label="click")
    raw = RawFeatures(schema)
    graph = tf.function(raw.__call__, input_signature=[raw.signature], autograph=False).get_concrete_function().graph
    assert not any("Regex" in node.op or node.op == "If" for node in graph.as_graph_def().node)


def test_golden_rows_write_tokens_in_several_ways(tmp_path):
    columns = with_clicks({"id": ["9", "7"], "flag": ["true", "false"], "name": ["9", "a"]})
    schema = Schema([Categorical("id"), Categorical("flag"), Categorical("name")], label="click")
    schema = tfctr.prepare(schema, train=columns, out=tmp_path / "data").schema
    rows = golden_rows(schema)
    assert {b"9.0", b" 9", b"09", b"+7"} <= set(rows["id"].tolist())
    assert {b"TRUE", b"1", b"False"} <= set(rows["flag"].tolist())
    assert not {b"9.0", b"09"} & set(rows["name"].tolist())
    ids = RawFeatures(schema)(rows).numpy()[:, 0]
    assert {rows["id"][row] for row in np.flatnonzero(ids == ids[0])} >= {b"7", b"7.0", b" 7", b"+7", b"07"}
