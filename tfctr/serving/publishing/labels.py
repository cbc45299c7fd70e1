"""Labels of versions, such as `stable` and `canary`, in the model configuration file of TensorFlow Serving.

A label may only be given to a version that is loaded, so that to move one takes two configurations: the first loads both the
old and the new version, the second moves the label once the new one is AVAILABLE. The old one stays loaded, for the way back,
until the next label moves.

TensorFlow Serving reads the file again every `--model_config_file_poll_wait_seconds`. To start with labels in it, it needs
`--allow_version_labels_for_unavailable_models=true`.

Reference: [model_server_config.proto](https://github.com/tensorflow/serving/blob/master/tensorflow_serving/config/model_server_config.proto)
"""

import re
import reprlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from tfctr.errors import ConfigError, StorageError, TfctrError, require_positive
from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.publishing.configuration import changing_config, find_model, find_or_add, read_config, unchanging_config
from tfctr.serving.store.folders import pin, require_base, version_folder, versions
from tfctr.serving.store.manifest import verify
from tfctr.serving.store.policy import chosen_versions
from tfctr.types import StrPath

# `{label: version}`, or None as the version to take a label away.
Labels: TypeAlias = Mapping[str, int | str | None]

_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_POLL_SECONDS = 0.5


def load_versions(config: StrPath, base: StrPath, labels: Labels, base_path: StrPath | None = None) -> list[int]:
    """The first step: a configuration that loads the versions which `labels` will name, and moves no label yet.

    Of the versions that no label names, the highest one that is served now stays, until a label moves above it: it is what
    clients without a label get. The others are unloaded. A policy `all` stays: it loads every version, and clients may ask for
    each by its number. Where no label is left, whichever version is the highest is served again.

    Args:
        config: the file; made if absent. Comments in it are lost, other models stay as they are.
        base: the folder of all versions; its name is the model's.
        labels: `{label: version}`, or None as the version to take a label away.
        base_path: where the server finds `base`, if the file does not have the model yet; `base` itself if None.

    Returns:
        The numbers that the server loads, ascending.

    Raises:
        ConfigError: a label, a number or the file cannot be used.
        StorageError: a version is missing, its files are not those that were published, `base` cannot be written, where these
            versions are noted, or another process has just changed the file.
    """
    base, wanted = require_base(base), _named_versions(base, labels)
    with changing_config(config) as server_config:
        model = find_or_add(server_config, base.name, base_path or base)
        policy, published, needed = model.model_version_policy, versions(base), _needed(model)
        labelled = wanted.union(model.version_labels.values())
        if not policy.HasField("all"):
            unlabelled = sorted(chosen_versions(policy, published))[-1:]
            _serve(policy, labelled.union(unlabelled) if labelled else ())
        pin(base, config, needed | _needed(model))
    _pin_what_it_says(base, config)
    return sorted(chosen_versions(policy, published))


def move_labels(config: StrPath, base: StrPath, labels: Labels) -> dict[str, int]:
    """The second step: move the labels, once the server has loaded the versions of the first step.

    Where no label is left, the server goes back to the highest version.

    Args: as for `load_versions`.

    Returns:
        All labels of the model, `{label: version}`.

    Raises:
        ConfigError: the file does not have the model, or does not load one of the versions, yet; or as for `load_versions`.
    """
    base, wanted = require_base(base), _named_versions(base, labels)
    with changing_config(config) as server_config:
        model = find_model(server_config, base.name)
        if model is None:
            raise ConfigError(f"{config} has no model {base.name!r}.", fix="write the first step: --step load")
        policy, needed = model.model_version_policy, _needed(model)
        missing = set() if policy.HasField("all") else wanted.difference(policy.specific.versions)
        if missing:
            problem = f"{config} does not load version {min(missing)} of {base.name} yet."
            raise ConfigError(problem, fix="write the first step, and wait until the version is AVAILABLE: --step load")
        for label, version in labels.items():
            model.version_labels.pop(label, None)
            if version is not None:
                model.version_labels[label] = int(version)
        if not model.version_labels:
            _serve(policy, ())
        pin(base, config, needed | _needed(model))
    _pin_what_it_says(base, config)
    return dict(sorted(model.version_labels.items()))


def wait_until_available(server: str, base: StrPath, labels: Labels, timeout: float = 300.0) -> None:
    """Wait until a server serves each version that `labels` names.

    Raises:
        StorageError: a version failed to load, or the server did not serve it in time.
    """
    require_positive("timeout", timeout)
    wanted, deadline = _named_versions(base, labels), time.monotonic() + timeout
    with PredictionClient(server, model=Path(base).name) as client:
        while wanted and (problem := _not_available(client, wanted)):
            if time.monotonic() > deadline:
                raise StorageError(
                    f"{server} does not serve version {min(wanted)} after {timeout:g} s: {problem}",
                    fix="see the server's log; it needs --model_config_file_poll_wait_seconds; then repeat with --step label",
                )
            time.sleep(_POLL_SECONDS)


def versions_in_use(config: StrPath, base: StrPath) -> set[int]:
    """The versions of `base` that a configuration file serves or labels: those must not be removed.

    Raises:
        ConfigError: the file does not have the model.
    """
    name = require_base(base).name
    model = find_model(read_config(config), name)
    if model is None:
        raise ConfigError(f"{config} has no model {name!r}.", fix="give the file that the server of this model reads")
    return chosen_versions(model.model_version_policy, versions(base)).union(model.version_labels.values())


def require_labels(base: StrPath, labels: Labels) -> dict[str, int]:
    """The labels with numbers as versions, which are there and whole; without those that are taken away.

    Args: as for `load_versions`.

    Raises:
        ConfigError: a label or a number cannot be used.
        StorageError: a version is missing, or its files are not those that were published.
    """
    for label in labels:
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            fix = "use lower-case letters, digits, - and _, beginning with a letter"
            raise ConfigError(f"{reprlib.repr(label)} cannot be a label.", fix=fix)
    folders = {label: version_folder(base, version) for label, version in labels.items() if version is not None}
    for folder in folders.values():
        verify(folder)
    return {label: int(folder.name) for label, folder in folders.items()}


def _named_versions(base: StrPath, labels: Labels) -> set[int]:
    """The versions that `labels`, of which there are some, names."""
    if not labels:
        raise ConfigError("there are no labels.", fix="give at least one, such as stable=7")
    return {*require_labels(base, labels).values()}


def _needed(model):
    """The versions that must not be removed: pinned before the file says that it needs them, and until it no longer does."""
    return {*model.model_version_policy.specific.versions, *model.version_labels.values()}


def _pin_what_it_says(base, config):
    """Pin what the file needs now: by then another process may have changed it again."""
    with unchanging_config(config):
        model = find_model(read_config(config), base.name)
        pin(base, config, _needed(model) if model else ())


def _serve(policy, numbers):
    """Serve these versions alone; the highest one if there are none: an empty list would unload the model."""
    policy.ClearField("specific")
    if numbers:
        policy.specific.versions.extend(sorted(numbers))


def _not_available(client, wanted):
    """Why the server does not serve all of them yet; None if it does. Raises `StorageError` for one that it cannot load."""
    try:
        known = {status["version"]: status for status in client.status()}
    except TfctrError as error:  # the model may be new to the server
        return error.problem
    for version in sorted(wanted):
        status = known.get(version, {"state": "not known", "error": ""})
        if status["error"]:
            problem = f"{client.target} cannot load version {version} of {client.model}: {status['error']}"
            raise StorageError(problem, fix="publish it again: a version that failed is not tried again")
        if status["state"] != "AVAILABLE":
            return f"version {version} is {status['state']}"
    return None
