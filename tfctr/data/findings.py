"""What a user should know of a split before anything is trained on it, a sentence each."""

from collections.abc import Callable, Iterator
from typing import Any

from tfctr.data.alone import alone_warnings
from tfctr.data.profile import move_warnings
from tfctr.data.shares import describe_jump, jumps, share_jumps


def findings(name: str, manifest: dict[str, Any], examples: Callable[[str], str] = lambda feature: "") -> Iterator[str]:
    """The sentences about one split of a prepared dataset; none of what an older manifest lacks.

    Args:
        name: of the split.
        manifest: the dataset's.
        examples: of tokens that the fit does not know, for a feature's name: the end of the sentence about them.
    """
    entry = manifest["splits"][name]
    training = manifest.get("training")
    where = f"the {name} split"
    jumped: set[str] = set()
    if name != "train" and training is not None and "counts" in entry:
        for jump in jumps(entry["counts"], training):
            jumped.add(jump[0])
            yield describe_jump(where, *jump) + (examples(jump[0]) if jump[1] == "unseen" else "")
    if name != "train" and "copies" in entry:
        share, expected = copies_of(name, manifest).values()
        if share_jumps(share, expected, entry["rows"], manifest["splits"]["train"]["rows"]):
            yield f"{where}: {share:.1%} of its rows are also in training; of rows like training's {expected:.1%} would be."
        others = {feature: found for feature, found in entry["profile"].items() if feature not in jumped}
        yield from move_warnings(where, others, manifest["splits"]["train"]["profile"])
    yield from alone_warnings(manifest.get("alone"))


def copies_of(name: str, manifest: dict[str, Any]) -> dict[str, float]:
    """The share of rows that equal a training row, and that expected: of training rows, those that equal another one."""
    entry = manifest["splits"][name]
    train = manifest["splits"]["train"]
    return {"share": entry["copies"] / entry["rows"], "expected": train["copies"] / train["rows"]}
