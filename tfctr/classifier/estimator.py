"""`tfctr.CTRClassifier`: the whole chain, from a raw table to click probabilities, as an estimator of scikit-learn."""

import collections
import contextlib
import dataclasses
import logging
import numbers
import random
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import rich.console
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from tfctr.classifier.rows import Rows, clicks_of, group_codes, labels_of, two_classes, weights_of
from tfctr.config import Config, Training
from tfctr.data import prepare
from tfctr.data.encoding import Fit, Reading
from tfctr.data.staging import Wanted
from tfctr.errors import ConfigError, DataError, choose, require, require_count
from tfctr.evaluation import figures
from tfctr.evaluation.scoring import scored_table
from tfctr.models import MODELS, CTRModel
from tfctr.schema import Schema
from tfctr.storage import atomic_folder
from tfctr.training import suggest, train
from tfctr.training.recorder import save_model
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)
_ROWS_AT_A_TIME = 10_000  # scored
_NESTED = ("arguments", "training")  # parameters whose keys are parameters, too: `arguments__dropout`


class CTRClassifier(ClassifierMixin, BaseEstimator):
    """A model of the registry as a classifier of scikit-learn, which learns from raw rows and scores raw rows.

    `fit` draws validation rows, infers a schema from the others (see `Schema.infer`), prepares both in a temporary folder (see
    `tfctr.prepare`), and trains by `tfctr.training.train` with the settings of `tfctr.training.suggest`, until the validation
    rows say stop. All that it has learnt is in the estimator, which can be pickled; nothing of the folder is needed.

    Rows are a pandas, polars or pyarrow table, or anything that becomes a 2-d array, whose columns are called `x0`, `x1`, ...
    Cells are text, numbers, truth values or lists, and may be missing. Columns, their order and their names must be those of
    `fit`. The two classes may be of any type; the second of them in sorted order is the click.

    Args:
        model: a name in `tfctr.models.MODELS`.
        arguments: of that model; each is a parameter by itself, too: `set_params(arguments__dropout=0.1)`.
        epochs, batch_size, learning_rate, optimizer: as in `tfctr.config.Training`; what is None is as `suggest` says.
        training: other keys of `tfctr.config.Training`, such as `{"monitor": "auc"}`; `training__monitor` by itself.
        validation_fraction: the share of the rows of each class, at least one of them, that is drawn for validation. Rows of
            another day are better: give them to `fit` as `X_val` and `y_val`.
        schema: a `Schema`, or None to infer one. Its label is `y`, whatever column it names; the weight is `sample_weight`
            where that is given.
        group: the column that groups rows for gAUC; None for that of the schema.
        random_state: a seed or a `RandomState`: of the draw of the validation rows, the initial weights, dropout and the order
            of rows; None for the library's own seed, so that `fit` always gives the same.
        verbose: whether training shows its progress on stderr.

    Attributes:
        classes_: the two classes, sorted.
        n_features_in_, feature_names_in_: columns of `X`; their names where all are text.
        schema_: the fitted `Schema`, which knows no vocabulary files.
        config_: the resolved `Config`.
        history_: one mapping an epoch: losses, validation AUC and log loss, learning rate, seconds.
        model_: the Keras model, of the best epoch, which reads prepared ids.

    >>> import pandas
    >>> clicks = pandas.DataFrame({"user": ["60", "7"] * 40, "price": [1.5, None, 2.5, 3.0] * 20})
    >>> classifier = CTRClassifier("LR", epochs=1).fit(clicks, ["no", "yes", "yes", "yes", "no"] * 16)
    >>> classifier.classes_.tolist(), classifier.predict_proba(clicks).shape
    (['no', 'yes'], (80, 2))

    Reference: [scikit-learn's rules for estimators](https://scikit-learn.org/stable/developers/develop.html).
    """

    classes_: np.ndarray
    n_features_in_: int
    schema_: Schema
    config_: Config
    history_: list[dict[str, Any]]
    model_: CTRModel
    _fit_files: dict[str, bytes]  # a dataset without splits: {path in its folder: content}

    def __init__(
        self,
        model: str = "TF4CTR",
        *,
        arguments: Mapping[str, Any] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        optimizer: str | None = None,
        training: Mapping[str, Any] | None = None,
        validation_fraction: float = 0.1,
        schema: Schema | None = None,
        group: str | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.arguments = arguments
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.training = training
        self.validation_fraction = validation_fraction
        self.schema = schema
        self.group = group
        self.random_state = random_state
        self.verbose = verbose

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters; if `deep`, those in `arguments` and `training` each by itself, too."""
        params = super().get_params(deep)
        nested = {name: params[name] for name in _NESTED if deep and isinstance(params[name], Mapping)}
        return params | {f"{name}__{key}": value for name, values in nested.items() for key, value in values.items()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters; `arguments__dropout=0.1` is one of `arguments`. Raises `ValueError` for a name that there is not."""
        nested = {name: value for name, value in params.items() if name.partition("__")[0] in _NESTED and "__" in name}
        super().set_params(**{name: value for name, value in params.items() if name not in nested})
        for name, value in nested.items():
            parameter, _, key = name.partition("__")
            setattr(self, parameter, {**(getattr(self, parameter) or {}), key: value})
        return self

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Learn from raw rows.

        Args:
            X: the rows, `(rows, columns)`.
            y: two classes, `(rows,)`.
            sample_weight: weights of at least 0, `(rows,)`; rows of weight 0 are left out.
            X_val, y_val, sample_weight_val: the validation rows; without them some of `X` are drawn.

        Raises:
            ConfigError: a parameter that cannot be used, with the closest name where it is unknown.
            DataError: a column or value that cannot be used, or rows of another number of classes than two.
            TrainingError: a loss term became non-finite.
        """
        given = self._given()
        fix = "give both, and sample_weight_val only beside them"
        is_whole = (X_val is None) == (y_val is None) and (X_val is not None or sample_weight_val is None)
        require(is_whole, "of `X_val` and `y_val` one is missing.", fix=fix)
        name = getattr(y, "name", None)
        columns, y, weights = self._read(X, y, sample_weight, reset=True)
        classes = two_classes(y)
        rows = Rows(columns, y == classes[1], weights).weighted()
        if X_val is None:
            rows, valid = rows.drawn(self.validation_fraction, given["training"]["seed"])
        else:
            columns, y, weights = self._read(X_val, y_val, sample_weight_val)
            valid = Rows(columns, clicks_of(y, classes, "y_val"), weights).weighted()
        with tempfile.TemporaryDirectory(prefix="tfctr-fit-") as folder, _global_draws_kept():
            schema, tables = self._schema_and_tables(name, train=rows, valid=valid)
            dataset = prepare(schema, train=tables["train"], valid=tables["valid"], out=Path(folder, "data"))
            config = suggest(dataset, self.model).to_dict()
            config = Config.from_dict({section: config[section] | values for section, values in given.items()})
            console = None if self.verbose else rich.console.Console(quiet=True)
            run = train(config, dataset, Path(folder, "run"), console)
            fit = Path(folder, "fit")
            fit.mkdir()
            Fit.of(dataset).save(fit, {}, {})
            self._fit_files = {str(file.relative_to(fit)): file.read_bytes() for file in fit.rglob("*") if file.is_file()}
            self.model_ = run.model
        self.classes_ = classes
        self.schema_ = dataclasses.replace(dataset.schema, folder=None)
        self.config_ = run.config
        self.history_ = run.history
        if "warning" in run.metrics:
            _LOG.warning(run.metrics["warning"])
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities of the two classes, `(rows, 2)` float64; what the fit does not know of `X` is a logged warning.

        The second column has the float32 numbers that `tfctr.evaluation.score` writes for these rows.
        """
        clicks = self._click_probabilities(X).astype(np.float64)
        return np.column_stack([1 - clicks, clicks])

    def predict(self, X: Any) -> np.ndarray:
        """The more probable class of each row, `(rows,)`."""
        clicks = self._click_probabilities(X)
        return self.classes_[(clicks > 0.5).astype(int)]

    def evaluate(self, X: Any, y: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Exact AUC, gAUC, log loss and calibration on raw rows, as `tfctr.evaluation.figures` gives them.

        `score` is the accuracy, which says little where clicks are rare.
        """
        probabilities = self._click_probabilities(X)
        columns, y, weights = self._read(X, y, sample_weight)
        group = self.schema_.group
        groups = None if group is None else group_codes(columns[group], group)
        return figures(clicks_of(y, self.classes_, "y"), probabilities, groups, weights)

    def save(self, folder: StrPath) -> None:
        """Write what the rest of the library reads into a new folder: the fit, as a dataset without splits, and the model.

        The model is `model.keras`, with a fresh state of its optimizer; its schema knows the folder. So
        `tfctr.load_model(folder / "model.keras")` can be exported, published, evaluated and score files, and `tfctr.encode` and
        `tfctr.drift` take the folder. To keep the estimator itself, pickle it.

        Raises:
            StorageError: the folder already holds something, or cannot be written.
        """
        check_is_fitted(self, "model_")
        config = self.model_.get_config()
        config["schema"]["folder"] = str(Path(folder).resolve())
        model = type(self.model_).from_config(config)
        model.compile_from_config(self.model_.get_compile_config() or {})
        model.set_weights(self.model_.get_weights())
        with atomic_folder(folder) as new:
            self._unpack_fit(new)
            save_model(model, new / "model.keras")

    def __sklearn_tags__(self) -> Any:
        tags: Any = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags

    # rows

    def _columns(self, X: Any, reset: bool = False) -> dict[str, Any]:
        """The columns by name, each with NumPy's `take`. Raises `ValueError` where they are not those of `fit`."""
        if hasattr(X, "columns") and hasattr(X, "shape"):  # of pandas, polars, Arrow
            is_pandas = hasattr(X, "iloc")
            table = X if is_pandas or isinstance(X, pa.Table) else X.to_arrow()
            for name, times in collections.Counter(table.columns if is_pandas else table.column_names).items():
                require(times == 1, f"X has {times} columns named {name!r}.", fix="give each its own name", error=DataError)
            validate_data(self, X, reset=reset, skip_check_array=True)
            require(0 not in X.shape, f"X has the shape {X.shape}.", fix="give rows and columns", error=DataError)
            columns = [table.iloc[:, index] for index in range(X.shape[1])] if is_pandas else table.columns
        else:
            array: Any = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite=False)
            columns = list(array.T)
        names = getattr(self, "feature_names_in_", [f"x{index}" for index in range(len(columns))])
        return dict(zip(names, columns, strict=True))

    def _read(
        self, X: Any, y: Any, sample_weight: Any, reset: bool = False
    ) -> tuple[dict[str, Any], np.ndarray, np.ndarray | None]:
        """The columns, the labels as an array, and the weights, as many as there are rows."""
        columns = self._columns(X, reset)
        y = labels_of(y)
        check_consistent_length(X, y, sample_weight)
        return columns, y, None if sample_weight is None else weights_of(sample_weight)

    def _click_probabilities(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "model_")
        table = self._columns(X)
        with tempfile.TemporaryDirectory(prefix="tfctr-fit-") as folder:
            self._unpack_fit(Path(folder))
            scored, found = scored_table(self.model_, table, _ROWS_AT_A_TIME, folder, Reading(Wanted(labels=False)))
        for finding in found["findings"]:
            _LOG.warning(finding)
        return scored["probabilities"]

    def _unpack_fit(self, folder: Path) -> None:
        for name, content in self._fit_files.items():
            file = folder / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)

    # settings

    def _given(self) -> dict[str, dict[str, Any]]:
        """What the parameters say of a run, by the sections of a `Config`. Raises `ConfigError` for what cannot be used."""
        own = {key: _plain(getattr(self, key)) for key in ("epochs", "batch_size", "learning_rate", "optimizer")}
        own = {"seed": self._seed(), **{key: value for key, value in own.items() if value is not None}}
        given = {
            "model": self._nested("arguments", name="model") | {"name": self.model},
            "training": self._nested("training", seed="random_state", **{key: key for key in own if key != "seed"}) | own,
        }
        Config.from_dict(given)
        is_schema = self.schema is None or isinstance(self.schema, Schema)
        require(is_schema, f"`schema` is {self.schema!r}.", fix="give a tfctr.Schema, such as tfctr.Schema.load('schema.yaml')")
        choose(MODELS, self.model, "model")
        return given

    def _nested(self, parameter: str, **taken: str) -> dict[str, Any]:
        """A parameter that is a mapping, as plain data. Raises `ConfigError` for a key that another parameter has `taken`."""
        values = getattr(self, parameter)
        is_mapping = values is None or isinstance(values, Mapping)
        require(is_mapping, f"`{parameter}` is {values!r}.", fix="give a dictionary")
        for key in taken.keys() & (values or {}).keys():
            raise ConfigError(f"`{parameter}` has {key!r}.", fix=f"give it as the parameter `{taken[key]}`")
        return _plain(values or {})

    def _seed(self) -> int:
        state = self.random_state
        if state is None:
            return Training().seed
        seed = state if isinstance(state, numbers.Integral) else check_random_state(state).randint(2**31)
        require_count("random_state", seed, 0, 2**31 - 1)
        return int(seed)

    def _schema_and_tables(self, label: Any, **splits: Rows) -> tuple[Schema, dict[str, dict[str, Any]]]:
        """The schema to fit, and a table for each split; `label` is what the label's column would like to be called."""
        schema = self.schema
        label = schema.label_column if schema else _free(label if isinstance(label, str) else "label", splits["train"].columns)
        weight = schema.weight if schema else None
        if any(rows.weights is not None for rows in splits.values()):
            weight = weight or _free("weight", [*splits["train"].columns, label])
        tables = {name: rows.table(label, weight) for name, rows in splits.items()}
        if schema is None:
            try:
                return Schema.infer(tables["train"], label=label, group=self.group, weight=weight), tables
            except DataError as error:
                fix = f"{error.fix}; or say what the columns are: schema=tfctr.Schema([...], label='click')"
                raise DataError(error.problem, fix=fix) from error
        return dataclasses.replace(schema, label=label, weight=weight, group=self.group or schema.group), tables


def _free(name: str, taken: Collection[str]) -> str:
    """A column's name that is not taken."""
    return _free(f"{name}_", taken) if name in taken else name


def _plain(value: Any) -> Any:
    """What grids are made of as plain data: tuples and arrays as lists, numbers of NumPy as Python's.

    >>> _plain({"hidden_units": (np.int64(32), 16)})
    {'hidden_units': [32, 16]}
    """
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def _global_draws_kept() -> Iterator[None]:
    """Leave the random numbers of Python and NumPy where they were: `train` seeds them, and other code may draw from them."""
    python, numpy = random.getstate(), check_random_state(None).get_state()
    try:
        yield
    finally:
        random.setstate(python)
        check_random_state(None).set_state(numpy)
