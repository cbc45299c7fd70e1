"""What a user should know of a split before anything is trained on it, a sentence each."""

from collections.abc import Callable, Iterator
from typing import Any

from tfctr.data.alone import alone_warnings
from tfctr.data.profile import move_warnings
from tfctr.data.shares import describe_jump, jumps, share_jumps


def findings(
    name: str, manifest: dict[str, Any], examples: Callable[[str], str] = lambda feature: "", where: str | None = None
) -> Iterator[str]:
    """The sentences about one split of a prepared dataset; none of what an older manifest lacks.

    Args:
        name: of the split.
        manifest: the dataset's.
        examples: of tokens that the fit does not know, for a feature's name: the end of the sentence about them.
        where: what the sentences call the split, if not by its name.
    """
    entry = manifest["splits"][name]
    training = manifest.get("training")
    fit = fit_of(manifest)
    where = where or f"the {name} split"
    jumped: set[str] = set()
    is_training = name == "train" and not manifest.get("encoded", False)
    if not is_training and training is not None and "counts" in entry:
        for jump in jumps(entry["counts"], training):
            jumped.add(jump[0])
            yield describe_jump(where, *jump) + (examples(jump[0]) if jump[1] == "unseen" else "")
    if not is_training and "copies" in entry:
        share, expected = copies_of(name, manifest).values()
        if share_jumps(share, expected, entry["rows"], fit["rows"]):
            yield f"{where}: {share:.1%} of its rows are also in training; of rows like training's {expected:.1%} would be."
    division = manifest.get("division", {"by": "content"})
    if division["by"] == "group" and division["column"] == entry.get("group") and entry["known_groups"]:
        share = entry["known_groups"] / entry["rows"]
        yield f"{where}: {share:.1%} of its rows have a {entry['group']!r} that is also in training, which was split by it."
    if not is_training and "profile" in entry and "profile" in fit:
        others = {feature: found for feature, found in entry["profile"].items() if feature not in jumped}
        yield from move_warnings(where, others, fit["profile"])
    yield from alone_warnings(manifest.get("alone"))


def fit_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The `rows` and the `profile` of the training table of a folder's fit: its train split, or that of another folder."""
    return manifest["fit"] if manifest.get("encoded", False) else manifest["splits"].get("train", {})


def copies_of(name: str, manifest: dict[str, Any]) -> dict[str, float]:
    """The share of rows that equal a training row, and that expected: of training rows, those that equal another one."""
    entry = manifest["splits"][name]
    train = manifest["splits"]["train"]
    return {"share": entry["copies"] / entry["rows"], "expected": train["copies"] / train["rows"]}
