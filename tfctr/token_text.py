r"""How a token is written: one canonical text, whatever file, table or request it comes from.

| form | takes | and writes |
|---|---|---|
| `text` | everything | as it is |
| `whole` | `9`, `9.0`, `9.`, `+9`, ` 9`, `009`, of any length; true as 1, false as 0 | `9`, `-9`, `0` |
| `number` | that, and decimals: `0.50`, `.5`; below 1e-4 also as Python writes them | `0.5`; below 1e-4 as Python: `1e-07` |
| `boolean` | true and false in any case; `1`, `1.0`, `0` | `true`, `false` |

Space around a token is no part of it, except for `text`. What does not fit the form stays as it is. In a categorical column of
another form than text, blanks and `nan` are missing.

All rules are regular expressions of RE2, which DuckDB and TensorFlow share: `prepare` and the served graph run the same ones. A
replacement names groups as `\1`; one that took no part is empty.
"""

import dataclasses
import re
from typing import Literal, TypeAlias

TOKEN_TYPES = ("text", "whole", "number", "boolean")
TokenType: TypeAlias = Literal["text", "whole", "number", "boolean"]

# The weight of a token is 0 or within these, so that its square is a float32, too.
SMALLEST_WEIGHT = 1e-15
GREATEST_WEIGHT = 1e15

TRUTH = {"true": 1.0, "false": 0.0}  # in any case, as numbers
SEVERAL_WHOLE = 2.0**53  # from here on a double may stand for several whole numbers,
SEVERAL_SHORT = 2.0**24  # and a float32


@dataclasses.dataclass(frozen=True)
class Form:
    """The rules of one form: what matches `canonical` stays, all else is rewritten by each `(pattern, replacement)` in turn.

    What is then `is_small` is rewritten by those of `SMALL`.
    """

    canonical: str
    rewrites: tuple[tuple[str, str], ...]
    is_small: str | None = None


_TRUE = r"^\s*(?i:true)\s*$"
_FALSE = r"^\s*(?i:false)\s*$"
_NO_SIGN = (r"^-0$", "0")
_MANTISSA = r"^\s*(?:\+|(-))?([1-9])(?:\.0*|(\.[0-9]*[1-9])0*)?"

# A decimal below 1e-4, in its canonical text but for that, as Python writes a double: 0.000012 is 1.2e-05. The zeros become the
# exponent, digit by digit; what is left to be counted stands before a mark that no text has.
IS_SMALL = r"^-?0\.0{4,322}[1-9][0-9]*$"
SMALL: tuple[tuple[str, str], ...] = (
    (r"^(-?)0\.(0{4,322}[1-9][0-9]*)$", "\\10\\2\x01"),
    *((f"^(-?)0{{{100 * digit}}}([0-9]*\x01)$", rf"\1\2{digit}") for digit in (3, 2, 1)),
    *((f"^(-?)0{{{10 * digit}}}([0-9]*)\x01([1-3]?)$", f"\\1\\2\x02\\3{digit}") for digit in range(9, -1, -1)),
    *((f"^(-?)0{{{digit}}}([1-9])([0-9]*)\x02([0-9]+)$", rf"\1\2.\3e-\4{digit}") for digit in range(9, -1, -1)),
    (r"^(-?[1-9])\.(e-[0-9]+)$", r"\1\2"),
)

FORMS = {
    "whole": Form(
        r"^(?:0|-?[1-9][0-9]*)$",
        (
            (_TRUE, "1"),
            (_FALSE, "0"),
            (r"^\s*(?:\+|(-))?0*([1-9][0-9]*|0)(?:\.0*)?\s*$", r"\1\2"),
            _NO_SIGN,
        ),
    ),
    "number": Form(
        r"^(?:0|-?[1-9][0-9]*(?:\.[0-9]*[1-9])?|-?0\.0{0,3}[1-9](?:[0-9]*[1-9])?"
        r"|-?[1-9](?:\.[0-9]*[1-9])?e-(?:0[5-9]|[1-9][0-9]{1,2}))$",
        (
            (_TRUE, "1"),
            (_FALSE, "0"),
            (r"^\s*([+-]?)(\.[0-9]+)\s*$", r"\10\2"),  # group 1, a zero, group 2
            (r"^\s*(?:\+|(-))?0*([1-9][0-9]*|0)(?:\.0*|(\.[0-9]*[1-9])0*)?\s*$", r"\1\2\3"),
            (_MANTISSA + r"[eE]-0?([5-9])\s*$", r"\1\2\3e-0\4"),
            (_MANTISSA + r"[eE]-([1-9][0-9]{1,2})\s*$", r"\1\2\3e-\4"),
            _NO_SIGN,
        ),
        IS_SMALL,
    ),
    "boolean": Form(
        r"^(?:true|false)$",
        (
            (r"^\s*(?:(?i:true)|\+?0*1(?:\.0*)?)\s*$", "true"),
            (r"^\s*(?:(?i:false)|[+-]?0+(?:\.0*)?)\s*$", "false"),
        ),
    ),
}
ABSENT = (r"^\s*(?i:nan)?\s*$", "")  # of a categorical column

# What the training tokens are, before they have a form. An exponent is one that Python writes, with its sign: "7e091613" and
# "1e999999" are hashes.
IS_BLANK = ABSENT[0]
IS_WORD = r"^\s*(?i:true|false)\s*$"
IS_WHOLE = r"^\s*[+-]?[0-9]+(?:\.0*)?\s*$"
IS_NUMBER = r"^\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+|[1-9](?:\.[0-9]*)?[eE]-(?:0?[5-9]|[1-9][0-9]{1,2}))\s*$"
IS_TRUTH = r"^\s*(?:(?i:true|false)|\+?0*1(?:\.0*)?|[+-]?0+(?:\.0*)?)\s*$"
# Two tokens of one number that differ in what this leaves, as 007 and 7, or 1.10 and 1.1, are codes.
NO_CODE = (r"^\s*[+-]?|(?:\.0*)?\s*$", "")

# Lists that were written as text, by Python, NumPy, JSON or a database: ['a', "b"], (1, 2), [1. 2.], [a, b], [].
_QUOTED = r"""(?:'[^'\\]*'|"[^"\\]*")"""
_BARE = r"""[^\s,'"\\\[\](){}]+"""
_DIGITS = r"(?:[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?|nan|NaN|None|null)"
_ITEM = f"(?:{_QUOTED}|{_BARE})"
_SPACED = f"(?:{_QUOTED}|{_DIGITS})"
_ITEMS = rf"{_SPACED}(?:\s*,\s*{_ITEM}|\s+{_SPACED})*\s*,?"
_WORDS = rf"{_BARE}(?:\s*,\s*{_ITEM})+\s*,?"
LIST = rf"^\s*(?:\[\s*(?:{_ITEMS}|{_WORDS})?\s*\]|\(\s*(?:{_ITEMS})?\s*\)|\{{\s*(?:{_ITEMS})?\s*\}})\s*$"
# What looks like one, and cannot be read: nested, with escapes, or with bare words of several parts.
LOOKS_LIKE_LIST = r"""^\s*(?:[\[({]\s*['"](?s:.*)[\])}]|\[[^\[\]]*,[^\[\]]*\]|\[\s*[\[({](?s:.*)[\])}]\s*\])\s*$"""


def weighted_token(separator: str) -> str:
    """What a token with a weight behind it matches: group 1 is the token, group 2 the weight, a number that is not negative."""
    return rf"^(?s:(.+)){re.escape(separator)}((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)$"


def list_rewrites(separator: str) -> tuple[tuple[str, str], ...]:
    """The rewrites that make a text that matches `LIST` its items, each followed by the separator."""
    mark = separator.replace("\\", "\\\\")
    item = rf"""\s*(?:'([^']*)'|"([^"]*)"|(?:nan|NaN|None|null)(?:\s*,|\s+|$)|({_BARE}))\s*,?"""
    return ((r"^\s*[\[({]\s*|\s*[\])}]\s*$", ""), (item, rf"\1\2\3{mark}"))


def written_forms(token_type: str | None, token: str) -> list[str]:
    """Other writings of a canonical token, for requests that check the form.

    >>> written_forms("whole", "9")
    ['9.0', ' 9', '+9', '09']
    """
    if token_type == "boolean":
        return {"true": ["TRUE", "1", "1.0"], "false": ["False", "0", " 0.0"]}.get(token, [])
    is_plain = token_type in ("whole", "number") and token.isascii() and token.isdigit()
    return [f"{token}.0", f" {token}", f"+{token}", f"0{token}"] if is_plain else []
