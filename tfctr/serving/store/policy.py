"""Which of the published versions a server serves: `ServableVersionPolicy`, a part of `ModelServerConfig`.

Reference: [tensorflow/serving](https://github.com/tensorflow/serving), `file_system_storage_path_source.proto` and `.cc`.
"""

from collections.abc import Iterable

from tfctr.serving.wire.protocol import ModelServerConfig
from tfctr.serving.wire.types import Message


def version_policy(numbers: Iterable[int] | None = None) -> Message:
    """The `ServableVersionPolicy` that serves these versions; the highest one if None."""
    policy = ModelServerConfig().model_config_list.config.add().model_version_policy
    if numbers is not None:
        policy.specific.versions.extend(numbers)
    return policy


def chosen_versions(policy: Message, published: Iterable[int]) -> set[int]:
    """The versions that a policy serves, a set.

    Args:
        policy: a `ServableVersionPolicy`; one that says nothing serves the highest version.
        published: the numbers of all versions that there are.

    >>> chosen_versions(version_policy(), [1, 2, 3]), chosen_versions(version_policy([1, 9]), [1, 2, 3])
    ({3}, {1})
    """
    match policy.WhichOneof("policy_choice"):
        case "all":
            return set(published)
        case "specific":
            return set(policy.specific.versions) & set(published)
    return set(sorted(published)[-(policy.latest.num_versions or 1) :])
