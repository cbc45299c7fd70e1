"""The tables of the two papers as comparisons: which models, with which settings, and what the paper found.

| table | of | what is compared |
|---|---|---|
| `tf4ctr-2` | TF4CTR, table 2 | six base models by log loss, focal, R-CE and TF loss, and its control, `gamma = 0` |
| `tf4ctr-3` | TF4CTR, table 3 | each selection (SSEM) with each fusion (DFM) |
| `tf4ctr-4` | TF4CTR, table 4 | ten models and TF4CTR; and two controls |
| `tf4ctr-5` | TF4CTR, table 5 | three models, and TF4CTR around their encoders |
| `cetn-5` | CETN, tables 5 and 6 | twenty models and CETN |
| `cetn-8` | CETN, table 8 | each semantic space alone, simMHN, CETN |
| `cetn-figure-6` | CETN, figure 6 | CETN without each of its parts |

The papers do not publish the settings of the models that they compare with. Here those have the width of embeddings, dropout,
batch normalization and L2 of the paper's own model, and hidden layers of 400, 400, 400; all else are the defaults of this
package. Table 3 of the paper was searched cell by cell; here all cells have the settings of its best one.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from tfctr.errors import choose
from tfctr.experiments.recipes import Paper, Recipe
from tfctr.models import PAIRS, describe_arguments

Arguments: TypeAlias = dict[str, Any]
_UNITS = [400, 400, 400]
_BASES = ("DualMLP", "AutoInt", "DeepFM", "DCN", "DCNv2", "AFN")
_LOSSES = {"log loss": "log_loss", "focal loss": "focal", "R-CE loss": "robust_cross_entropy"}
_SELECTIONS = {"separate": "SER", "gated": "GM", "experts": "MoE", "shared": "Share"}
_FUSIONS = {"weighted_sum": "WSF", "voting": "VF", "concatenation": "CF", "experts": "MoEF", "sum": "Sum"}
_ALONE = {"elementwise": "S_EP", "inner": "S_IP", "fields": "E"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Args:
        model: the section `model` of a run.
        published: `{"auc", "log_loss"}` that the paper has, as far as it has them; empty for a control of ours.
        loss: `training.loss`.
        is_baseline: whether others are compared with it.
    """

    model: Arguments
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    loss: str = "log_loss"
    is_baseline: bool = False


def paper_of(table: str) -> Paper:
    """Which paper a table is of."""
    return "tf4ctr" if table.startswith("tf4ctr") else "cetn"


def table_names(recipe: Recipe) -> list[str]:
    """The tables that the papers have of a data set."""
    own = [*recipe.published]
    return [*own, "cetn-figure-6"] if "cetn-8" in own else own


def table_rows(recipe: Recipe, table: str) -> dict[str, Row]:
    """`{name: Row}` of one table. Raises `ConfigError` for one that the papers do not have of this data set."""
    build = choose({name: _TABLES[name] for name in table_names(recipe)}, table, f"table of {recipe.name!r}:")
    return dict(build(recipe.run(paper_of(table)).to_dict()["model"], recipe.published.get(table, {}), recipe))


def _base(name: str, own: Arguments, **changes: Any) -> Arguments:
    """A model that the paper's `own` is compared with."""
    deep = own.get("complex_encoder", own)
    common = {"embedding_dim": own["embedding_dim"], "hidden_units": _UNITS, "embedding_l2": own["embedding_l2"]}
    common |= {"dropout": deep["dropout"], "batch_norm": deep.get("batch_norm", False)}
    if name == "DualMLP" and "simple_encoder" in own:
        common["simple_hidden_units"] = own["simple_encoder"]["hidden_units"]
    known = describe_arguments(name)
    return {"name": name, **{argument: value for argument, value in common.items() if argument in known}, **changes}


def _around(name: str, own: Arguments, **changes: Any) -> Arguments:
    """TF4CTR around the encoders of another model, of which the MLP is the paper's own."""
    pair = {} if name == "DualMLP" else {"simple_encoder": PAIRS[name]["simple_encoder"]}
    return {**own, **pair, **changes}


def _losses(own: Arguments, published: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[str, Row]]:
    for name in _BASES:
        found = [{"auc": percent / 100} for percent in published[name]]
        for (title, loss), figures in zip(_LOSSES.items(), found, strict=False):
            yield f"{name} by {title}", Row(_base(name, own), figures, loss, is_baseline=loss == "log_loss")
        twin = _around(name, own, selection="shared", fusion="weighted_sum")
        yield f"{name} by TF loss", Row(twin, found[-1])
        yield f"{name} by TF loss, gamma 0", Row({**twin, "gamma": 0.0})


def _modules(own: Arguments, published: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[str, Row]]:
    for selection, found in published.items():
        for (fusion, title), percent in zip(_FUSIONS.items(), found, strict=True):
            model = {**own, "selection": selection, "fusion": fusion}
            is_baseline = (selection, fusion) == ("shared", "sum")
            yield f"{_SELECTIONS[selection]} + {title}", Row(model, {"auc": percent / 100}, is_baseline=is_baseline)


def _models(own: Arguments, published: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[str, Row]]:
    for name, percent in published.items():
        is_own = name == own["name"]
        yield name, Row(own if is_own else _base(name, own), {"auc": percent / 100}, is_baseline=not is_own)
    yield "TF4CTR with gamma 0", Row({**own, "gamma": 0.0})
    wide = own["embedding_dim"] * 3 // 2  # the numbers that each id has in the two tables of SER
    yield f"DualMLP with {wide} numbers an id", Row(_base("DualMLP", own, embedding_dim=wide))


def _frameworks(own: Arguments, published: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[str, Row]]:
    for name, (base, framed) in published.items():
        yield name, Row(_base(name, own), {"auc": base / 100}, is_baseline=True)
        yield f"{name} in TF4CTR", Row(_around(name, own), {"auc": framed / 100})


def _zoo(own: Arguments, published: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[str, Row]]:
    for name, (auc, log_loss) in published.items():
        is_own = name == own["name"]
        figures = {"auc": auc, "log_loss": log_loss}
        yield name, Row(own if is_own else _base(name, own), figures, is_baseline=not is_own)


def _alone(own: Arguments, published: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[str, Row]]:
    common = {name: own[name] for name in ("embedding_dim", "embedding_l2")}
    multi = {"name": "SimMHN", **common, **recipe.simmhn}
    for name, (auc, log_loss) in published.items():
        figures = {"auc": auc, "log_loss": log_loss}
        if name in _ALONE:
            yield _ALONE[name], Row({**multi, "spaces": [name], "weight_hidden_units": None}, figures)
        else:
            yield name, Row(own if name == own["name"] else multi, figures, is_baseline=name == "SimMHN")


def _without(own: Arguments, published: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[str, Row]]:
    yield "CETN", Row(own, is_baseline=True)
    for part, change in {
        "A": {"activation": "relu"},
        "CL": {"contrast": None},
        "COS": {"cosine_weights": None},
        "K": {"weight_hidden_units": None},
        "P": {"spaces": ["fields"] * 3},
        "T": {"through": False},
    }.items():
        yield f"CETN (-{part})", Row({**own, **change})


_TABLES: dict[str, Callable[[Arguments, Mapping[str, Any], Recipe], Iterator[tuple[str, Row]]]] = {
    "tf4ctr-2": _losses,
    "tf4ctr-3": _modules,
    "tf4ctr-4": _models,
    "tf4ctr-5": _frameworks,
    "cetn-5": _zoo,
    "cetn-8": _alone,
    "cetn-figure-6": _without,
}
