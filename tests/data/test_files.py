"""Files as people have them: read as what they are, which is said, or refused with the line that helps."""

import bz2
import codecs
import gzip
import io
import lzma
import random
import zipfile

import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import tfctr
from tfctr import cli
from tfctr.errors import ConfigError, DataError, StorageError, TfctrError
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Schema

SCHEMA = Schema([Categorical("user"), Numeric("price", "edges", edges=[2.0])], label="click")
NAMES = ["user", "price", "click"]
ROWS = [["Zoë", "1.5", "0"], ["7 up", "2", "1"], ["Zoë", "", "1"]]
EXPECTED = [[3, 5 + 3], [4, 5 + 4], [3, 5 + 1]]  # "Zoë" is 3, for it is there twice; 5 ids come before those of the price


def text(separator=",", header=NAMES, rows=ROWS, end="\n"):
    return "".join(separator.join(row) + end for row in ([header] if header else []) + rows)


def write(folder, name, content, encoding="utf-8"):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return file


def prepared(folder, train, schema=SCHEMA, **layout):
    return tfctr.prepare(schema, train=train, out=folder / f"data{len(list(folder.iterdir()))}", **layout)


def ids(folder, train, **layout):
    dataset = prepared(folder, train, **layout)
    vocabulary = dataset.schema.vocabulary_file(dataset.schema.features[0]).read_text(encoding="utf-8")
    assert vocabulary == "Zoë\n7 up\n"
    assert dataset.train.labels.tolist() == [0, 1, 1]
    return dataset.train.ids.tolist()


@pytest.mark.sampled(9)
@pytest.mark.parametrize("kind", ["csv", "txt", "data", "dat", "tsv", "tab"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", ", ", "; "])
def test_any_separator_in_any_text_file(tmp_path, kind, separator, caplog):
    with caplog.at_level("INFO", "tfctr"):
        assert ids(tmp_path, write(tmp_path, f"a.{kind}", text(separator))) == EXPECTED
    usual = {"csv": ",", "tsv": "\t", "tab": "\t"}.get(kind)
    assert [f"separated by {separator!r}" in message for message in caplog.messages] == [True] * (separator != usual)


def test_two_colons_separate_in_a_dat_file(tmp_path):
    assert ids(tmp_path, write(tmp_path, "ratings.dat", text("::"))) == EXPECTED


def test_the_usual_separator_comes_before_others(tmp_path, caplog):
    content = "user,tags,click\na,x|y|z,0\nb,x|y|z,1\n"
    with caplog.at_level("INFO", "tfctr"):
        dataset = prepared(tmp_path, write(tmp_path, "a.csv", content), Schema([Categorical("tags")], label="click"))
    assert dataset.schema.features[0].size == 4
    assert caplog.messages == []


def test_what_was_seen_is_said_once_for_many_files(tmp_path, caplog):
    for name in "abc":
        write(tmp_path, f"{name}.csv", text(";"))
    with caplog.at_level("INFO", "tfctr"):
        prepared(tmp_path, str(tmp_path / "?.csv"))
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("separator", ["\t", r"\t", "|", "::", ";", "\x01"])
def test_a_separator_that_is_forced(tmp_path, separator):
    file = write(tmp_path, "a.csv", text(separator.replace(r"\t", "\t")))
    assert ids(tmp_path, file, separator=separator) == EXPECTED
    with pytest.raises(DataError, match=r"no column 'click'(.|\n)*separator"):
        prepared(tmp_path, write(tmp_path, "b.csv", text(";")), separator="\t")


def test_quoted_cells_keep_separators_line_ends_and_quotes(tmp_path):
    content = 'user;price;click\r\n"a;""b""";1,5;0\r\n"c\r\n\r\nd";2;1\r\n'
    dataset = prepared(tmp_path, write(tmp_path, "a.csv", content), Schema([Categorical("user")], label="click"))
    assert dataset.schema.vocabulary_file(dataset.schema.features[0]).read_text() == 'a;"b"\n'
    assert dataset.train.ids.tolist() == [[3], [2]]  # a token with a line end is in no vocabulary
    spaced = 'user, click\n"a, b", 0\nc, 1\n'
    dataset = prepared(tmp_path, write(tmp_path, "b.csv", spaced), Schema([Categorical("user")], label="click"))
    assert dataset.schema.vocabulary_file(dataset.schema.features[0]).read_text() == "a, b\nc\n"


def test_spaces_around_names_are_no_part_of_them(tmp_path):
    assert ids(tmp_path, write(tmp_path, "a.csv", text(header=["user ", " price", "  click"]))) == EXPECTED


# compressed


def zipped(content, name="a.csv"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._a", b"x")
        archive.writestr(name, content)
    return buffer.getvalue()


def zstd(content):
    return pa.compress(content, "zstd", asbytes=True)


COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd, "zip": zipped}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("ending", ["csv", "inter", "jsonl", "parquet"])
def test_compressed_files_of_every_kind(tmp_path, kind, ending):
    if ending == "parquet":
        pd.DataFrame(dict(zip(NAMES, zip(*ROWS, strict=True), strict=True))).to_parquet(tmp_path / "plain.parquet")
        plain = (tmp_path / "plain.parquet").read_bytes()
    elif ending == "jsonl":
        plain = pd.DataFrame(ROWS, columns=NAMES).to_json(orient="records", lines=True).encode()
    else:
        plain = text("\t" if ending == "inter" else ",").encode()
    packed = zipped(plain, f"a.{ending}") if kind == "zip" else COMPRESS[kind](plain)
    name = "a.zip" if kind == "zip" else f"A.{ending.upper()}.{kind}"
    assert ids(tmp_path, write(tmp_path, name, packed)) == EXPECTED


@pytest.mark.parametrize("kind", COMPRESS)
def test_cut_and_damaged_files_are_refused(tmp_path, kind):
    draw = random.Random(0)
    rows = [[str(draw.random()), "1", str(row % 2)] for row in range(500)]
    whole = COMPRESS[kind](text(rows=rows).encode())
    name = f"a.csv.{kind}" if kind != "zip" else "a.zip"
    for cut in [12, len(whole) // 2, len(whole) - 1]:
        with pytest.raises(TfctrError, match=rf"(?s){name} is not a whole .* file.*fix: write or fetch it again"):
            prepared(tmp_path, write(tmp_path, name, whole[:cut]))


def test_a_zip_file_with_more_than_one_file_lists_them(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    with pytest.raises(ConfigError, match=r"holds 2 files, not one: a.csv, b.csv(.|\n)*unpack it"):
        prepared(tmp_path, tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"PAR1xxxxPAR1", r"holds a \.parquet file"),
        ("a.csv", gzip.compress(b"user", mtime=0), r"holds a \.gz file(.|\n)*end with \.gz"),
        ("a.jsonl", gzip.compress(b"{}", mtime=0), r"holds a \.gz file"),
        ("a.csv", zipped(b"user"), "zip file or an Excel sheet"),
        ("a.xlsx", b"x", r"unknown kind(.|\n)*\.csv.*DataFrame"),
        ("a.gz", b"x", r"unknown kind"),
        ("a.libsvm", b"1 1:2", "libsvm(.|\n)*load_svmlight_file"),
        ("a.txt", b"1 3:1 7:0.5\n0 2:1\n", "libsvm(.|\n)*load_svmlight_file"),
        ("a.csv", b"-1 3:1 7:0.5\n", "libsvm(.|\n)*load_svmlight_file"),
    ],
)
def test_files_of_another_kind_are_refused_with_what_helps(tmp_path, name, content, words):
    with pytest.raises(ConfigError, match=words):
        prepared(tmp_path, write(tmp_path, name, content))


# encodings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_text_with_a_mark_is_read(tmp_path, encoding, caplog):
    with caplog.at_level("INFO", "tfctr"):
        assert ids(tmp_path, write(tmp_path, "a.csv", text(end="\r\n"), encoding)) == EXPECTED
    assert len(caplog.messages) == (encoding != "utf-8-sig")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be"])
def test_other_text_is_refused_with_the_option_that_reads_it(tmp_path, encoding):
    file = write(tmp_path, "a.csv", text(), encoding)
    with pytest.raises(DataError, match=rf"--encoding {encoding if 'utf' in encoding else 'cp1252'}"):
        prepared(tmp_path, file)
    header = write(tmp_path, "b.csv", text(header=["user", "price", "click", "Größe"], rows=[]), "latin-1")
    with pytest.raises(DataError, match=r"header line is not UTF-8 text(.|\n)*--encoding cp1252"):
        prepared(tmp_path, header)
    assert ids(tmp_path, file, encoding=encoding) == EXPECTED


def test_a_wrong_encoding_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"is not ascii text|Invalid unicode"):
        prepared(tmp_path, write(tmp_path, "a.csv", text(), "latin-1"), encoding="ascii")
    with pytest.raises(DataError, match="is not utf-16 text"):
        prepared(tmp_path, write(tmp_path, "a.csv", codecs.BOM_UTF16_LE + b"a\0b"))


# no header, RecBole


@pytest.mark.parametrize("kind", ["csv", "data", "tsv"])
def test_a_file_without_a_header_is_said_to_have_none(tmp_path, kind):
    file = write(tmp_path, f"a.{kind}", text("\t" if kind == "tsv" else ",", header=None))
    with pytest.raises(DataError, match=r"looks like values \(Zoë, 1.5, 0\), not names: name its 3 columns.*--columns"):
        prepared(tmp_path, file)
    with pytest.raises(DataError, match="looks like values"):
        Schema.infer(file, label="click")
    assert ids(tmp_path, file, columns=NAMES) == EXPECTED
    assert Schema.infer(file, label="click", columns=NAMES).label == "click"
    with pytest.raises(DataError, match="has 3 cells a line, and `columns` names 2"):
        prepared(tmp_path, file, columns=NAMES[:2])
    with pytest.raises(ConfigError, match="first line holds the names"):
        prepared(tmp_path, write(tmp_path, f"b.{kind}", text("\t" if kind == "tsv" else ",")), columns=NAMES)


def test_names_that_are_numbers_are_names_where_the_schema_has_them(tmp_path, caplog):
    file = write(tmp_path, "a.csv", "0,1,click\na,b,0\nc,d,1\n")
    with caplog.at_level("INFO", "tfctr"):
        assert prepared(tmp_path, file, Schema([Categorical("0")], label="click")).train.rows == 2
    assert ["look like values" in message for message in caplog.messages] == [True]


def test_recbole_names_lose_their_types(tmp_path, caplog):
    content = "user:token\tprice:float\tclick:float\n" + text("\t", header=None)
    with caplog.at_level("INFO", "tfctr"):
        assert ids(tmp_path, write(tmp_path, "a.inter", content)) == EXPECTED
    assert ["'user:token' is 'user'" in message for message in caplog.messages] == [True]
    caplog.clear()
    lists = write(tmp_path, "l.inter", "items:token_seq\tclick:float\n1 2\t0\n2\t1\n")
    schema = Schema([Sequence("items", max_length=2, separator=" ")], label="click")
    with caplog.at_level("INFO", "tfctr"):
        assert prepared(tmp_path, lists, schema).train.ids.tolist() == [[4, 3], [3, 0]]
    assert "lists, with spaces between their values: items" in caplog.messages[-1]
    partly = write(tmp_path, "b.inter", content.replace("click:float", "click"))
    with pytest.raises(DataError, match=r"no column 'price'(.|\n)*'price:float'"):
        prepared(tmp_path, partly)


# missing values, numbers


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "user,price,click\r\na,1,0\nb,1,1\n", "lines end in several ways(.|\n)*dos2unix"),
        ("a.csv", 'user,price,click\n"a,1,0\nb,1,1\n', "line 2: Value with unterminated quote"),
        ("a.json", '{\n"user": "a",\n"click": 1}\n', "line 2: Malformed JSON(.|\n)*on one line"),
        ("a.json", '[{"user": "a", "click": 1}]', "does not hold one JSON object a line"),
    ],
)
def test_lines_that_are_none(tmp_path, name, content, words):
    with pytest.raises(DataError, match=words):
        prepared(tmp_path, write(tmp_path, name, content))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_every_end(tmp_path, end):
    assert ids(tmp_path, write(tmp_path, "a.csv", text(end=end))) == EXPECTED


@pytest.mark.sampled(2)
@pytest.mark.parametrize("mark", ["NA", "null", r"\N", "?", "-", "None"])
def test_marks_of_missing_numbers(tmp_path, mark):
    file = write(tmp_path, "a.csv", text(rows=[*ROWS[:2], ["Zoë", f" {mark} ", "1"]]))
    with pytest.raises(DataError, match=r"column 'price', row 3(.|\n)*--missing .*missing=\["):
        prepared(tmp_path, file)
    assert ids(tmp_path, file, missing=["x", mark]) == EXPECTED


def test_a_mark_of_missing_tokens(tmp_path):
    file = write(tmp_path, "a.csv", "user,click\nNA,0\nb,1\n")
    schema = Schema([Categorical("user")], label="click")
    assert prepared(tmp_path, file, schema).train.ids.tolist() == [[3], [4]]
    assert prepared(tmp_path, file, schema, missing=["NA"]).train.ids.tolist() == [[1], [3]]


@pytest.mark.parametrize("number", ["1,5", "-0,25", "1.234,5"])
def test_decimal_commas_are_refused_with_what_helps(tmp_path, number):
    with pytest.raises(DataError, match="decimal point"):
        prepared(tmp_path, write(tmp_path, "a.csv", text(";", rows=[["a", number, "0"], ["b", "2", "1"]])))


# arguments


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        ({"separator": ""}, "`separator` is ''"),
        ({"separator": "tab key"}, "`separator` is"),
        ({"separator": '"'}, "`separator` is"),
        ({"columns": "a,b"}, "`columns` is 'a,b'"),
        ({"columns": ["a", "a"]}, "`columns` is"),
        ({"columns": []}, "`columns` is"),
        ({"missing": "NA"}, "`missing` is 'NA'"),
        ({"encoding": "latin-99"}, "`encoding` is 'latin-99'"),
        ({"encoding": "hex"}, "`encoding` is 'hex'"),
    ],
)
def test_layouts_that_cannot_be_used(tmp_path, layout, problem):
    with pytest.raises(ConfigError, match=problem):
        prepared(tmp_path, write(tmp_path, "a.csv", text()), **layout)
    with pytest.raises(ConfigError, match=problem):
        Schema.infer(tmp_path / "a.csv", label="click", **layout)


def test_a_layout_without_a_text_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="`missing` is for files of separated cells"):
        prepared(tmp_path, {"user": ["a", "b"], "price": [1, 2], "click": [0, 1]}, missing=["NA"])
    with pytest.raises(ConfigError, match="`separator` is for files of separated cells"):
        Schema.infer(write(tmp_path, "a.jsonl", '{"user": "a", "click": 1}'), label="click", separator=";")


def test_the_command_line_takes_a_layout(tmp_path):
    rows = [["Zoë", "1.5", "0"], ["7 up", "2", "1"], ["Zoë", "NA", "1"], ["Zoë", "?", "1"]]
    file, schema = write(tmp_path, "a.data", text("_", header=None, rows=rows), "cp1252"), tmp_path / "schema.yaml"
    layout = ["--separator", "_", "--columns", "user, price,click", "--missing", "NA", "--missing", "?", "--encoding", "cp1252"]
    run = CliRunner().invoke(cli.app, ["infer", str(file), "--label", "click", "--out", str(schema), *layout])
    assert run.exit_code == 0, run.stderr
    assert "--separator _ --columns user,price,click --missing NA --missing '?' --encoding cp1252" in run.stderr
    train = ["prepare", str(schema), "--train", str(file), "--out", str(tmp_path / "data"), *layout]
    run = CliRunner().invoke(cli.app, train)
    assert run.exit_code == 0, run.stderr
    assert tfctr.Dataset.load(tmp_path / "data").train.labels.tolist() == [0, 1, 1, 1]


def test_a_missing_file_is_one_error(tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        prepared(tmp_path, tmp_path / "none.zip")
