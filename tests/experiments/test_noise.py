"""`Comparison`: figures, tests and words, of results that are made up, and which of them are noise."""

import csv
import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from tfctr.config import Config
from tfctr.errors import TrainingError
from tfctr.experiments import Comparison, Contender
from tfctr.experiments.statistics import holm, paired_t_test, wilcoxon_test
from tfctr.metrics import relative_improvement

METRICS = {"parameters": 10, "epochs": 3, "seconds_per_epoch": 2.0, "rows_per_second": 100.0, "model_sha256": "ab" * 32}


def result(auc, log_loss, valid=0.7, groups=None):
    test = {"auc": auc, "group_auc": None, "log_loss": log_loss, "pcoc": 1.0, "ece": 0.01}
    figures = {"test": test, "valid": {**test, "auc": valid}}
    history = [{"val_auc": valid - 0.1}, {"val_auc": valid}]
    made = {
        "figures": figures,
        "metrics": METRICS,
        "environment": {"seed": 1},
        "history": history,
        "folder": Path("runs/a/seed-1"),
    }
    return {**made, "groups": None if groups is None else np.stack([groups, np.ones(len(groups))])}


def contender(name, aucs, losses=None, is_baseline=False, valid=0.7, groups=None):
    losses = [0.4] * len(aucs) if losses is None else losses
    results = {seed: result(*values, valid, groups) for seed, values in enumerate(zip(aucs, losses, strict=True), 1)}
    return Contender(name, Config.from_dict({"model": {"name": "DNN"}}), is_baseline, results)


BASE = contender("base", [0.700, 0.702, 0.701, 0.699], [0.50, 0.51, 0.52, 0.53], True, valid=0.71)
BETTER = contender("better", [0.711, 0.712, 0.710, 0.709], [0.49, 0.52, 0.51, 0.54])
SAME = contender("same", [0.701, 0.700, 0.702, 0.698], [0.50, 0.51, 0.52, 0.53])
WORSE_ON_VALID = contender("on test above", [0.9, 0.9, 0.9, 0.9], is_baseline=True, valid=0.6)


def test_the_baseline_is_chosen_on_valid():
    assert Comparison([WORSE_ON_VALID, BETTER, BASE], "test", "").baseline is BASE


def test_figures_are_means_over_the_seeds_with_their_spread():
    base, better = Comparison([BASE, BETTER], "test", "").rows()
    assert better["auc"] == pytest.approx(statistics.fmean([0.711, 0.712, 0.710, 0.709]))
    assert better["auc_std"] == pytest.approx(statistics.stdev([0.711, 0.712, 0.710, 0.709]))
    assert math.isnan(better["group_auc"])
    assert better["valid_auc"] == pytest.approx(0.7)
    assert better["rela_impr"] == pytest.approx(relative_improvement(better["auc"], base["auc"]))
    assert (base["rela_impr"], base["baseline"], better["baseline"]) == (0, True, False)
    assert (better["parameters"], better["seconds_per_epoch"], better["seeds"], better["failed"]) == (10, 2.0, 4, 0)


def test_tests_are_paired_by_the_seed_and_corrected():
    rows = {row["model"]: row for row in Comparison([SAME, BASE, BETTER], "test", "").rows()}
    base = [0.700, 0.702, 0.701, 0.699]
    others = {"same": [0.701, 0.700, 0.702, 0.698], "better": [0.711, 0.712, 0.710, 0.709]}
    for name, test in (("auc_t", paired_t_test), ("auc_wilcoxon", wilcoxon_test)):
        expected = holm([test(others[model], base) for model in ("same", "better")])
        assert [rows["same"][name], rows["better"][name]] == pytest.approx(expected)
    assert rows["better"]["auc_difference"] == pytest.approx(0.01)
    assert math.isnan(rows["same"]["log_loss_t"])  # equal in each seed


def test_only_seeds_that_both_have_are_compared():
    failed = {**BETTER.results, 2: {"failed": "loss: nan", "groups": None, "folder": Path("runs/a/seed-2")}}
    comparison = Comparison([BASE, Contender("better", BETTER.config, False, failed)], "test", "")
    row = comparison.rows()[1]
    assert (row["seeds"], row["failed"]) == (3, 1)
    assert row["auc_difference"] == pytest.approx(statistics.fmean([0.011, 0.009, 0.010]))
    assert "better: 1 of 4 seeds failed, [2]: loss: nan" in comparison.sentences()


def test_words_say_what_is_noise():
    said = "\n".join(Comparison([BASE, BETTER, SAME], "test", "").sentences())
    assert "base is the baseline" in said
    assert "better: AUC +0.01000, more than noise (p = " in said
    assert "log loss +0.00000, no more than noise" in said
    assert "same: AUC -0.00025, no more than noise" in said
    assert "log loss is the same" in said


def test_one_seed_says_nothing_of_chance():
    one = [contender("base", [0.7], is_baseline=True), contender("other", [0.8])]
    *_, other, last = Comparison(one, "test", "").sentences()
    assert other == "other: AUC +0.10000, of one seed; log loss is the same."
    assert last.startswith("One seed says nothing of chance")


def test_groups_are_compared_by_their_mean_over_the_seeds():
    rng = np.random.default_rng(0)
    theirs = rng.random(50)
    ours = theirs + rng.normal(0.05, 0.05, 50)
    theirs[7] = ours[7] = math.nan  # of one class only
    pair = [contender("base", [0.7, 0.7], is_baseline=True, groups=theirs), contender("other", [0.7, 0.7], groups=ours)]
    row = Comparison(pair, "test", "").rows()[1]
    used = ~np.isnan(ours)
    assert row["group_auc_difference"] == pytest.approx(np.mean(ours[used] - theirs[used]))
    said = Comparison(pair, "test", "").sentences()[1]
    assert f"each group's AUC {row['group_auc_difference']:+.5f}, more than noise" in said
    assert row["group_auc_t"] == pytest.approx(paired_t_test(ours[used], theirs[used]))
    assert row["group_auc_wilcoxon"] == pytest.approx(wilcoxon_test(ours[used], theirs[used]))


def test_what_is_not_defined_is_no_difference():
    """Test rows of one class, equal differences in all seeds, and no seed in common."""
    none = [contender("base", [None, None], [0.5, 0.5], True), contender("other", [None, None], [0.6, 0.6])]
    _, other = Comparison(none, "test", "").sentences()
    assert other == "other: AUC is not defined; log loss +0.10000, in each seed."
    failed = {"failed": "loss: nan", "groups": None, "folder": Path("runs/a/seed-1")}
    one, two = ({seed: BASE.results[seed], 3 - seed: failed} for seed in (1, 2))
    apart = [Contender(name, BASE.config, True, results) for name, results in (("base", one), ("other", two))]
    assert "other: AUC: no seed that both have; log loss: no seed that both have." in Comparison(apart, "test", "").sentences()


def test_one_seed_beside_a_model_that_failed_says_nothing_either():
    failed = Contender("failed", BASE.config, False, {1: {"failed": "loss: nan", "folder": Path("runs/a/seed-1")}})
    comparison = Comparison([contender("base", [0.7], is_baseline=True), failed], "test", "")
    assert comparison.sentences()[-1].startswith("One seed says nothing of chance")


def test_runs_of_other_versions_and_processors_are_told():
    here, there = ({"tfctr": version, "processor": name, "seed": 1} for version, name in (("0.1", "A"), ("0.2", "B")))
    results = {seed: {**BETTER.results[seed], "environment": env} for seed, env in ((1, here), (2, there))}
    said = Comparison([Contender("base", BASE.config, True, results)], "test", "").sentences()
    assert "The runs are not of one tfctr: 0.1, 0.2. That differs, too." in said
    assert "The runs are not of one processor: A, B. That differs, too." in said
    assert len([sentence for sentence in said if "The runs" in sentence]) == 2


@pytest.mark.parametrize("name", ["$\\frac{$", "x" * 500])
def test_a_picture_has_any_name(name, tmp_path):
    Comparison([contender("base", [0.7], is_baseline=True), contender(name, [0.8])], "test", "").save(tmp_path)
    assert (tmp_path / "comparison.html").read_text(encoding="utf-8").count("<svg") == 2


def test_a_comparison_without_a_baseline_is_none():
    failed = Contender("base", BASE.config, True, {1: {"failed": "loss: nan"}})
    with pytest.raises(TrainingError, match="no baseline"):
        Comparison([failed, BETTER], "test", "")


def test_files_hold_the_same_and_the_page_stands_alone(tmp_path):
    named = Contender("<b>&", BETTER.config, False, {**BETTER.results, 9: {"failed": "<i>", "folder": Path("runs/a/seed-9")}})
    comparison = Comparison([BASE, named], "test", "0" * 64)
    comparison.save(tmp_path)
    plain = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert plain["rows"][1]["auc"] == comparison.rows()[1]["auc"]
    assert plain["rows"][1]["group_auc"] is None
    assert plain["contenders"][1]["results"]["1"]["metrics"] == METRICS
    with open(tmp_path / "comparison.csv", encoding="utf-8") as file:
        lines = [*csv.DictReader(file)]
    assert [line["model"] for line in lines] == ["base", "<b>&"]
    assert float(lines[1]["auc"]) == comparison.rows()[1]["auc"]
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert "<b>&" not in page.replace("<b>&amp;", "")
    assert "&lt;i&gt;" in page
    assert "<i>" not in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "https://matplotlib.org", ""
    ).replace("http://creativecommons.org", "")
    assert page.count("<svg") == 2
    for number in range(2):
        assert f"href='#runs-{number}'" in page
        assert f"id='runs-{number}'" in page
