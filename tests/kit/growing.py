"""Datasets of users, given as words in a text, that extend each other day by day."""

import tfctr
from tfctr import Categorical, Schema

USERS = Schema([Categorical("user", min_count=2)], label="click")


def users(text):
    """A table with a row for each letter."""
    return {"user": [*text], "click": [row % 2 for row in range(len(text))]}


class Days:
    """Datasets in one folder, each an extension of the one before."""

    def __init__(self, folder, schema, table, **arguments):
        self.folder, self.days = folder, [tfctr.prepare(schema, train=table, out=folder / "day1", **arguments)]

    def extend(self, table, **arguments):
        out = self.folder / f"day{len(self.days) + 1}"
        self.days.append(tfctr.prepare(extend=self.days[-1], train=table, out=out, **arguments))
        return self.days[-1]


def vocabulary(dataset, feature=0):
    """The tokens in the order of their ids, the first of which is 3."""
    return dataset.schema.vocabulary_file(dataset.schema.features[feature]).read_text().split("\n")[:-1]


def counts(dataset, name="user"):
    return tuple(dataset.extension["features"][name].values())  # known, seen again, new, evicted, left out
