"""The table that a process prepares while it is killed."""

from tfctr.features import Categorical, Numeric
from tfctr.schema import Schema

SCHEMA = Schema([Categorical("user"), Numeric("price", "scaled")], label="click")
ROWS = 3000
TABLE = {
    "user": [row % 100 for row in range(ROWS)],
    "price": [row / 7 for row in range(ROWS)],
    "click": [row % 2 for row in range(ROWS)],
}
