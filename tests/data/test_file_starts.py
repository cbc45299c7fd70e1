"""What may stand at the start of a file: a line that names the separator, comments, a byte order mark."""

import re
import subprocess

import pandas as pd
import pytest

from tfctr.errors import ConfigError, DataError
from tfctr.schema import Schema

NAMES = ["user", "item", "click"]
ROWS = [["a", "1", "0"], ["b", "2", "1"], ["a", "3", "1"]]
RECORDS = "".join(f'{{"user": "ä{number}", "item": 1, "click": {number % 2}}}\n' for number in range(4))


def cells(mark):
    return "".join(mark.join(row) + "\n" for row in [NAMES, *ROWS])


def inferred(folder, content, name="t.csv", encoding="utf-8", **layout):
    (folder / name).write_bytes(content.encode(encoding))
    return [feature.name for feature in Schema.infer(folder / name, label="click", **layout).features]


@pytest.mark.sampled(5)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("line", "mark"), [("sep=;", ";"), ('"sep=|"', "|"), ("SEP=\t", "\t"), ("sep=_", "_"), ("sep=,", ",")])
def test_a_line_that_names_the_separator(tmp_path, line, mark, encoding):
    assert inferred(tmp_path, f"{line}\n{cells(mark)}", encoding=encoding) == ["user", "item"]
    without_names = "\n".join([line, *cells(mark).splitlines()[1:]])
    assert inferred(tmp_path, without_names, encoding=encoding, columns=NAMES) == ["user", "item"]


def test_such_a_line_alone(tmp_path):
    with pytest.raises(DataError, match="no header line"):
        inferred(tmp_path, "sep=;\n")


@pytest.mark.sampled(5)
@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("before", ["# exported\n", "# exported\n# on Monday, late\n\n", "#\n" * 5])
@pytest.mark.parametrize("name", ["t.csv", "t.txt"])
def test_comments_before_the_header(tmp_path, before, mark, name):
    with pytest.raises(DataError, match=r"before its header, beginning with '#") as refused:
        inferred(tmp_path, before + cells(mark), name)
    found = {"pandas": pd}
    exec(f"table = {re.search(r'pandas.read_csv.*dtype=str.', refused.value.fix)[0]}", found)
    assert list(found["table"]) == NAMES
    command = re.search(r"tail .*? > NEW", refused.value.fix)[0].replace("FILE", name).replace("NEW", f"new_{name}")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert inferred(tmp_path, (tmp_path / f"new_{name}").read_text(), name) == ["user", "item"]


def test_a_title_before_the_header(tmp_path):
    with pytest.raises(DataError, match=r"1 line stands before its header.* 'Clicks of January'"):
        inferred(tmp_path, "Clicks of January\n" + cells(","))


@pytest.mark.parametrize("header", ["#user,item,click", "# user,item,click"])
def test_a_header_that_begins_like_a_comment(tmp_path, header):
    (tmp_path / "t.csv").write_text(header + cells(",")[len("user,item,click") :])
    assert len(Schema.infer(tmp_path / "t.csv", label="click").features) == 2


@pytest.mark.sampled(1)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_lines_with_a_mark(tmp_path, encoding):
    assert inferred(tmp_path, RECORDS.replace('"item": 1', '"item": "x"') * 2, "t.jsonl", encoding) == ["user"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "cp1252"])
def test_json_lines_in_another_encoding(tmp_path, encoding):
    with pytest.raises(DataError) as refused:
        inferred(tmp_path, RECORDS, "t.jsonl", encoding)
    command = re.search("iconv .*", refused.value.fix)[0].replace("FILE", "t.jsonl").replace("NEW", "new.jsonl")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert inferred(tmp_path, (tmp_path / "new.jsonl").read_text(encoding="utf-8"), "t.jsonl") == ["user"]


def test_a_table_in_memory_is_told_what_works_there():
    table = pd.DataFrame([["a", "NA", 0], ["b", "2.5", 1], ["c", "3.5", 1]])
    with pytest.raises(ConfigError) as refused:
        Schema.infer(table, label="click", columns=NAMES)
    exec(re.search(r"table\.columns = .*", refused.value.fix)[0], {"table": table})
    with pytest.raises(ConfigError) as refused:
        Schema.infer(table, label="click", missing=["NA"])
    found = {"table": table}
    exec(re.search(r"table = .*", refused.value.fix)[0], found)
    assert found["table"]["item"].isna().tolist() == [True, False, False]
    assert len(Schema.infer(found["table"], label="click").features) == 2
    with pytest.raises(DataError) as refused:
        Schema.infer(pd.DataFrame({"user;click": ["a;1"]}), label="click")
    assert "separator" not in refused.value.fix
