"""The papers' tables: each row is a model that can be built, with the settings that the paper's own model has."""

import json

import pytest
from kit.at_length import at_length
from kit.commands import done, tfctr_
from kit.own_copies import write

from tfctr.config import Config
from tfctr.experiments.recipes import Recipe, recipes
from tfctr.experiments.reproduce import reproduce
from tfctr.experiments.tables import table_names, table_rows
from tfctr.models import build
from tfctr.storage import read_json

TABLES = [(recipe, table) for recipe in recipes().values() for table in table_names(recipe)]
FRAPPE = Recipe.named("frappe")


def name_of(value):
    return value if isinstance(value, str) else value.name


@pytest.mark.parametrize(("recipe", "table"), TABLES, ids=name_of)
def test_every_row_is_a_run(recipe, table):
    rows = table_rows(recipe, table)
    assert any(row.is_baseline for row in rows.values())
    own = recipe.run("tf4ctr" if table.startswith("tf4ctr") else "cetn").to_dict()["model"]
    for row in rows.values():
        config = Config.from_dict({"model": row.model, "training": {"loss": row.loss}})
        assert config.model.arguments.get("embedding_l2") == own["embedding_l2"]
        assert all(0 < value < 1 for value in row.published.values())
    published = [row.published for row in rows.values()]
    assert (
        sum(map(bool, published))
        == {
            "tf4ctr-2": 24,
            "tf4ctr-3": 20,
            "tf4ctr-4": 11,
            "tf4ctr-5": 6,
            "cetn-5": 21,
            "cetn-8": 5,
            "cetn-figure-6": 0,
        }[table]
    )


@pytest.mark.parametrize("table", at_length(table_names(FRAPPE), "cetn-figure-6"))
def test_every_row_can_be_built(table, tiny_schema):
    for name, row in table_rows(FRAPPE, table).items():
        arguments = {argument: value for argument, value in row.model.items() if argument != "name"}
        assert build(row.model["name"], tiny_schema, **arguments).count_params() > 0, name


@pytest.mark.slow
def test_what_the_paper_has_stands_beside_what_came_out(tmp_path):
    own, out = write("frappe", tmp_path / "own"), tmp_path / "out"
    training = {"epochs": 1, "batch_size": 100}
    found = reproduce("frappe", own, out, "cetn-8", ["S_IP", "CETN"], seeds=1, training=training)
    assert [row["model"] for row in found.rows()] == ["S_IP", "CETN"]
    assert [row["published_auc"] for row in found.rows()] == [0.977373, 0.98571]
    assert found.cells()[1][3] == "0.977373"
    assert read_json(out / "cetn-8" / "reproduction.json")["rows"][1]["published_log_loss"] == 0.150283
    settings = out / "cetn-8" / "settings"
    assert sorted(file.name for file in settings.iterdir()) == ["00-SimMHN.yaml", "01-CETN.yaml"]
    assert Config.load(settings / "01-CETN.yaml").model.arguments["temperature"] == 0.3


def test_on_the_command_line(tmp_path):
    listed = json.loads(done("reproduce", "--json"))
    assert listed["avazu"]["tables"] == ["cetn-5", "cetn-8", "cetn-figure-6"]
    assert "tf4ctr-5: DeepFM; DeepFM in TF4CTR; " in done("reproduce", "frappe")
    given = ["--files", tmp_path, "--out", tmp_path / "out"]
    for arguments, code, problem in (
        (["frappe", "--table", "tf4ctr-5"], 2, "a table needs --files and --out"),
        (["avazu", "--table", "tf4ctr-5", *given], 2, "Unknown table of 'avazu'"),
        (["frappe", "--table", "tf4ctr-5", *given], 6, "has no train.csv"),
        (["frappe", "--table", "tf4ctr-5", "--model", "DNN", *given], 2, "Unknown model"),
    ):
        result = tfctr_("reproduce", *arguments)
        assert (result.exit_code, problem in result.stderr) == (code, True), result.stderr
    assert [*tmp_path.iterdir()] == []
