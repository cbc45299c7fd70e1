"""The versions that the local stand-in serves: those under a base path that a policy chooses, and their labels."""

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from tfctr.errors import StorageError, TfctrError
from tfctr.serving.runtime import warmup
from tfctr.serving.runtime.saved_model import SavedModel, StatusError, refuse_unless
from tfctr.serving.store.folders import versions
from tfctr.serving.store.manifest import MANIFEST, verify
from tfctr.serving.store.policy import chosen_versions, version_policy
from tfctr.serving.wire.codes import Code
from tfctr.serving.wire.types import Message

_LOG = logging.getLogger(__name__)


class ServedModel:
    """The loaded versions of one model, `loaded`: version -> SavedModel.

    `failed` has the error of each chosen version that cannot be loaded, and which folder that was; `labels` are names of
    versions. All three are replaced whole, never changed: requests read them meanwhile.

    Args:
        name: the model's name in requests.
        base: the folder of all versions.
        policy: a `ServableVersionPolicy`; the highest version if None.
    """

    def __init__(self, name: str, base: Path, policy: Message | None = None) -> None:
        self.name = name
        self.base = base
        self.loaded: dict[int, SavedModel] = {}
        self.failed: dict[int, tuple[TfctrError, tuple[int, int]]] = {}
        self.labels: dict[str, int] = {}
        self._policy = policy or version_policy()
        self._refreshing = threading.Lock()

    def refresh(self, first: bool = False) -> None:
        """Load the versions that the policy chooses. A failure is remembered, and raised only the `first` time."""
        with self._refreshing:
            try:
                published = {version: _identity(self.base / str(version)) for version in versions(self.base)}
            except OSError:  # a version is being removed; the next poll sees the outcome
                return
            if not published and not self.base.is_dir():  # away for a moment
                return
            self.failed = {version: failed for version, failed in self.failed.items() if published.get(version) == failed[1]}
            chosen = chosen_versions(self._policy, published)
            for version in sorted(chosen - self.loaded.keys() - self.failed.keys()):
                self._load(version, published[version], first)
            kept = {version: model for version, model in self.loaded.items() if version in chosen}
            if kept or not chosen:  # a version that fails to load leaves the old one in place
                # Requests hold the model they run on: the old one is freed when the last of them ends.
                self.loaded = kept

    def _load(self, version: int, identity: tuple[int, int], first: bool) -> None:
        folder = self.base / str(version)
        try:
            if (folder / MANIFEST).exists():
                verify(folder)
            else:
                _LOG.warning("%s: nothing says what its files should be: tfctr did not publish it", folder)
            model = SavedModel(folder)
            warmup.replay(folder, model)
            self.loaded = {**self.loaded, version: model}
            _LOG.info("%s: version %d is served", self.base, version)
        except TfctrError as error:
            self.failed = {**self.failed, version: (error, identity)}
            _LOG.error("%s: version %d cannot be loaded: %s", self.base, version, error.problem)
            if first:
                raise StorageError(
                    f"{folder} cannot be loaded: {error.problem}",
                    fix="remove this version or export it again",
                ) from error

    def find(self, spec: Message) -> tuple[int, SavedModel]:
        """The version that a `ModelSpec` asks for, and its SavedModel."""
        refuse_unless(spec.name, Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        loaded = self.loaded  # read once: another version may take its place meanwhile
        wanted = self._version(spec)
        asked = f"Latest({spec.name})" if wanted is None else f"Specific({spec.name}, {wanted})"
        version = max(loaded, default=None) if wanted is None else wanted
        if spec.name != self.name or version is None or version not in loaded:
            raise StatusError(Code.NOT_FOUND, f"Servable not found for request: {asked}")
        return version, loaded[version]

    def _version(self, spec: Message) -> int | None:
        if spec.WhichOneof("version_choice") != "version_label":
            return spec.version.value if spec.HasField("version") else None
        labels = self.labels if spec.name == self.name else {}
        known = spec.version_label in labels
        refuse_unless(known, Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}")
        return labels[spec.version_label]

    def label(self, labels: Mapping[str, int]) -> None:
        """Replace all labels: name -> version, which must be loaded."""
        for version in labels.values():
            refuse_unless(
                version in self.loaded,
                Code.FAILED_PRECONDITION,
                f"Request to assign label to version {version} of model {self.name}, "
                "which is not currently available for inference",
            )
        self.labels = dict(labels)

    def reload(self, config: Message) -> None:
        """Take the policy and the labels of a `ModelServerConfig`. As in TensorFlow Serving, labels come before loading."""
        refuse_unless(
            config.WhichOneof("config") == "model_config_list",
            Code.INVALID_ARGUMENT,
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported",
        )
        models = config.model_config_list.config
        own = len(models) == 1 and models[0].name == self.name and self._is_base(models[0].base_path)
        refuse_unless(own, Code.UNIMPLEMENTED, f"the local stand-in serves one model: {self.name} at {self.base}")
        self.label(models[0].version_labels)
        self._policy = models[0].model_version_policy
        self.refresh()

    def _is_base(self, path: str) -> bool:
        """Whether that is the base path, named through links or not."""
        try:
            return os.path.isabs(path) and os.path.realpath(path) == str(self.base)
        except ValueError:  # no file can have this name: a null byte, or a character that the file system's encoding lacks
            return False


def _identity(folder: Path) -> tuple[int, int]:
    """Tells a folder from another one that takes its name later."""
    stat = folder.stat()
    return stat.st_ino, stat.st_ctime_ns
