"""From what was seen of a column to a feature, or to the reason why it is none; with what a person should know of it.

| a column | becomes |
|---|---|
| nearly the answer alone: an AUC of .999, or of .98 under a name like the label's | nothing |
| a constant; a token that hardly any other row has; free text; dates and times; lists of fractions | nothing |
| numbers beside a few texts ("NA"), with decimal commas, separators of thousands or units | nothing, until they are numbers |
| lists, or text that a mark cuts into short tokens that come again | a sequence |
| numbers with fractions; whole ones that are amounts by their name, or by the order of their click rates | numeric, quantile |
| such whole numbers with many small and few large values: counts | numeric, log2_floor |
| everything else: text, codes, ids, other whole numbers | categorical; from 10,000 tokens on with `min_count` 2 |
"""

import dataclasses
import math
import re
import reprlib
import shlex
from collections.abc import Iterable
from typing import Any

from tfctr.data.evidence import MOST_ODD, Evidence
from tfctr.data.files import MISSING_MARKS
from tfctr.data.times import Times, find_times, suspect_times
from tfctr.features import DEFAULT_BUCKETS, Categorical, Feature, Numeric, Sequence

ANSWER = 0.999
NEAR_ANSWER = 0.98
MUCH = 0.95
_LEAST_OF_A_CLASS = 10  # below it an AUC of 1 is chance
_PERCENT = 95  # of the rows of a sequence are kept whole,
_SHORT, _LONG = 20, 200  # by a `max_length` within these, and no greater than the longest row's length
_OWN_TOKENS = 0.5  # the share of rows with a token of their own from which on a mark cuts text, not a list
_STRONG_MARKS = "|;^~\t"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CODES = _words("""
    id ids uid gid pid cid key code codes zip zipcode postcode plz type kind class category cat app os device
    channel browser site domain ip hash user item ad campaign advertiser publisher creative slot banner position
    product sku brand model region city country state county gender sex hour weekday dayofweek dow day month version
    flag is has group segment cluster lang language carrier network connection tag label name status level grade
""")
_AMOUNTS = _words("""
    age price amount amt count counts cnt num number total sum qty quantity balance duration seconds secs minutes
    hours days weeks months years time income gain loss score rate ratio pct percent percentage length height width
    weight distance views clicks impressions visits salary cost fee budget revenue bid times freq frequency avg mean
    average max min median temp temperature area pages spend value size lat lon lng latitude longitude
""")
_PREFIXES = {**dict.fromkeys(("num", "n", "nb", "count", "total", "avg", "mean"), "amount"), "is": "code", "has": "code"}
_HISTORIES = _words("history histories hist recent last latest previous past viewed clicked watched visited bought purchased")
_TIME_NAMES = _words("""
    time timestamp ts date datetime day hour epoch created updated at stamp
""")


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A `feature`, or None and the `reason`; `notes` for a person; whether a person should look at it first: `warning`."""

    column: str
    feature: Feature | None
    reason: str | None = None
    notes: tuple[str, ...] = ()
    warning: str | None = None
    instead: tuple[Feature, ...] = ()  # features that a person may want, once the table has them


def propose(seen: Evidence, name: str, label: str, separator: str | None = None) -> Proposal:
    """The `Proposal` for a column with the `Evidence` `seen`, under the served `name`; lists, if there is a `separator`."""
    reason = reason_against(seen, label)
    proposal = Proposal(seen.name, None, reason, warning=reason) if reason else _propose(seen, name, separator)
    proposal = _maybe_times(seen, name, proposal)
    warning = proposal.warning
    if proposal.feature is not None and not warning and seen.strongest >= MUCH and _can_judge(seen):
        what = "nearly everything" if seen.strongest >= NEAR_ANSWER else "much"
        warning = f"it tells {what} alone ({_worth(seen)}): make sure that it is known before the click"
    alike = _is_alike(seen.name, label) and not reason
    notes = (f"its name is like the label's, {label!r}: make sure that it is known before the click",) if alike else ()
    return dataclasses.replace(proposal, notes=(_describe(seen), *proposal.notes, *notes), warning=warning)


def name_tokens(name: str) -> list[str]:
    """The words of a name, in lower case.

    >>> name_tokens("appVersion_2-ID")
    ['app', 'version', '2', 'id']
    """
    apart = re.sub(r"([a-z])([A-Z])|([A-Za-z])(\d)", lambda found: f"{found[1] or found[3]} {found[2] or found[4]}", name)
    return [word for word in re.split(r"[\W_]+", apart.lower()) if word]


def reason_against(seen: Evidence | None, label: str) -> str | None:
    """Why a column is the label, or made from it; None if it is not, or if there is no `Evidence` of it."""
    if seen is None or not _can_judge(seen) or seen.strongest < NEAR_ANSWER:
        return None
    if seen.strongest >= ANSWER:
        return f"it is the answer, or was made from it: {_worth(seen)}"
    return f"it is nearly the answer ({_worth(seen)}) and has a name like it" if _is_alike(seen.name, label) else None


def _can_judge(seen: Evidence) -> bool:
    return min(seen.clicks, seen.rows - seen.clicks) >= _LEAST_OF_A_CLASS


def _is_alike(name: str, label: str) -> bool:
    mine, its = ({word for word in name_tokens(text) if len(word) > 2} for text in (name, label))
    answers = {"label", "target", "outcome", "converted", "conversion", "response"}
    return bool(mine & answers) or any(a.startswith(b) or b.startswith(a) for a in mine for b in its)


def _worth(seen: Evidence) -> str:
    if seen.missing == seen.strongest:
        return f"whether it is missing alone has AUC {seen.missing:.3f}"
    what = "its order alone has" if seen.order == seen.strongest else "its values alone have"
    return f"{what} AUC {seen.strongest:.3f}"


def _describe(seen: Evidence) -> str:
    numbers = seen.numbers == seen.given > 0 and not seen.is_list and seen.least is not None
    kind = "lists" if seen.is_list else "text" if not numbers else "numbers" if seen.fractions else "whole numbers"
    bounds = f" from {seen.least:.15g} to {seen.most:.15g}" if numbers else ""
    examples = f" such as {show(seen.seen)}" if not numbers and seen.seen else ""
    missing = 1 - (seen.given + seen.bad) / seen.rows
    order = f", {seen.order:.3f} in order" if seen.order != 0.5 else ""
    gaps = f", {seen.missing:.3f} by what is missing" if missing else ""
    return (
        f"{kind}{bounds}{examples}; {seen.distinct:,} distinct in {seen.rows:,} rows, {missing:.1%} missing; "
        f"AUC alone {seen.token:.3f} by value{order}{gaps}"
    )


def show(values: Iterable[object]) -> str:
    """Values in one line of printable characters."""
    return ", ".join(reprlib.repr(value) for value in values)


def _propose(seen: Evidence, name: str, separator: str | None) -> Proposal:
    if separator is not None:
        return _useless(seen, name) or _unreadable(seen, name) or _lists(seen, name, separator)
    for rule in (_useless, _unreadable, _time, _cut, _dirty, _unique, _number):
        proposal = rule(seen, name)
        if proposal is not None:
            return proposal
    return Proposal(seen.name, _categorical(seen, name))


def _without(
    seen: Evidence, reason: str, warning: bool = False, instead: tuple[Feature, ...] = (), notes: tuple[str, ...] = ()
) -> Proposal:
    return Proposal(seen.name, None, reason, notes, ": ".join([reason, *notes]) if warning else None, instead)


def _useless(seen: Evidence, name: str) -> Proposal | None:
    if seen.given + seen.bad == 0:
        return _without(seen, "it is empty")
    if seen.distinct == 1 and seen.given == seen.rows:
        return _without(seen, "it is constant")
    return None


def _unreadable(seen: Evidence, name: str) -> Proposal | None:
    if not seen.bad and (not seen.no_tokens or (seen.numbers == seen.given and not seen.is_list)):
        return None
    values = show(seen.seen) if not seen.given else f"{seen.no_tokens:,} rows"
    if seen.is_list:
        return _without(seen, f"its lists hold what is no token, such as fractions (an embedding?): {values}")
    return _without(seen, f"it holds what is neither text nor a whole number: {values}")


def _time(seen: Evidence, name: str) -> Proposal | None:
    times = find_times(seen, bool(_TIME_NAMES & set(name_tokens(seen.name))))
    if times is None:
        return None
    return time_proposal(seen.name, name, f"it holds times, such as {show(seen.seen[:2])}, which later rows do not have", times)


def time_proposal(column: str, name: str, reason: str, times: Times) -> Proposal:
    """What to do with times: `prepare` makes no hours and weekdays, the table must have them."""
    advice = f"add its {' and '.join(times.parts)} to the table, and to every request"
    doubt = (times.doubt,) if times.doubt else ()
    notes = (f"{advice}; with pandas: {times.recipe(column, name)}", *doubt)
    instead = tuple(Categorical(f"{name}_{part}") for part in times.parts)
    return Proposal(column, None, reason, notes, ": ".join([reason, advice, *doubt]), instead)


def _maybe_times(seen: Evidence, name: str, proposal: Proposal) -> Proposal:
    """A proposal with what to do if the column holds times, though its name does not say so."""
    looks, times = (None, None) if proposal.warning else suspect_times(seen)
    if times is None:
        return proposal
    advice = f"it looks like {looks}: if so, leave it out, and add its hour and weekday to the table, and to every request"
    notes = (*proposal.notes, f"{advice}; with pandas: {times.recipe(seen.name, name)}")
    return dataclasses.replace(proposal, notes=notes, warning=advice if proposal.feature is not None else None)


def _cut(seen: Evidence, name: str) -> Proposal | None:
    if seen.amounts * 10 >= 9 * seen.given or _only_marks_are_odd(seen):
        return None
    if any(2 * found.fractions > found.tokens > seen.given for found in seen.splits.values()):
        return _of_fractions(seen)
    marks = [mark for mark in seen.splits if _cuts(seen, mark)]
    if not marks:
        words = seen.splits.get(" ")
        if words and words.words / seen.given >= 4 and seen.distinct * 2 > seen.given >= 20:
            return _without(seen, f"it is free text, such as {show(seen.seen[:1])}")
        return None
    return _sequence(seen, name, max(marks, key=lambda mark: (mark in _STRONG_MARKS, seen.splits[mark].rows)))


def _sequence(seen: Evidence, name: str, mark: str) -> Proposal:
    found = seen.splits[mark]
    quantile = found.quantile(_PERCENT)
    length = max(1, min(found.longest, max(_SHORT, min(quantile, _LONG))))
    cut = found.share_above(length)
    distinct = found.stripped if seen.brackets else found.distinct
    notes = [f"cut at {mark!r}: {distinct:,} distinct tokens, at most {found.longest:,} a row"]
    if found.stripped < found.distinct and not seen.brackets:
        notes.append(f"blanks around a token count: without them there would be {found.stripped:,} distinct tokens")
    if cut:
        notes.append(
            f"`max_length` {length} cuts {_share(cut)} of the rows with tokens; {_PERCENT}% of them have at most {quantile:,}"
        )
    is_history = bool(_HISTORIES & set(name_tokens(seen.name)))
    if is_history:
        notes.append("`keep: last`, since its name says a history: right where its newest tokens are last, else `keep: first`")
    elif cut:
        notes.append("`keep: first`; a history in the order of time, its newest last, wants `keep: last`")
    feature = Sequence(
        name,
        max_length=length,
        separator=mark,
        min_count=_min_count(found.distinct),
        keep="last" if is_history else "first",
        **_column(seen, name),
    )
    return Proposal(seen.name, feature, notes=tuple(notes))


def _share(share: float) -> str:
    """A share above 0, which is not said to be none.

    >>> _share(0.0401), _share(0.0001)
    ('4.0%', 'less than 0.1%')
    """
    return f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def _of_fractions(seen: Evidence) -> Proposal:
    return _without(seen, f"it holds lists of numbers with fractions (an embedding?), such as {show(seen.seen[:1])}")


def _lists(seen: Evidence, name: str, mark: str) -> Proposal:
    """A column that holds lists by what its header says."""
    found = seen.splits.get(mark)
    if seen.fractions or (found and found.fractions):
        return _of_fractions(seen)
    if found is None:  # of one token each
        feature = Sequence(name, max_length=1, separator=mark, min_count=_min_count(seen.distinct), **_column(seen, name))
        return Proposal(seen.name, feature, notes=("lists, as its header says",))
    return _sequence(seen, name, mark)


def _cuts(seen: Evidence, mark: str) -> bool:
    found = seen.splits[mark]
    if seen.is_list:
        return mark == "|"
    if not found.tokens or found.words > 3 * found.tokens or found.characters > 40 * found.tokens:
        return False  # sentences
    if seen.brackets * 20 >= 19 * seen.given:
        return mark == ","
    if mark in _STRONG_MARKS:
        comes_again = found.tokens >= 2 * found.distinct or found.distinct < seen.distinct
        is_new_in_each = found.once > max(_OWN_TOKENS * seen.given, found.tokens / 5)  # as a number behind a word
        return (comes_again and not is_new_in_each) or seen.rows < 100
    is_likely = seen.given >= 50 and found.tokens >= 5 * found.distinct and 2 * found.distinct <= seen.distinct
    if mark != " ":
        return is_likely
    return is_likely and not found.stopwords and found.tokens >= 1.5 * seen.given and found.characters <= 20 * found.tokens


def _dirty(seen: Evidence, name: str) -> Proposal | None:
    if seen.amounts * 10 >= 9 * seen.given and seen.numbers != seen.given:
        reason = f"it holds numbers written as text, such as {show(seen.seen)}; as tokens most would be unseen later"
        fix = "write them as 1234.5, without signs of units and thousands, and it can be numeric"
        return _without(seen, reason, True, (Numeric(name, "quantile", **_column(seen, name)),), (fix,))
    are_most = seen.given * 9 <= seen.numbers * 10 or (seen.fractions and _only_marks_are_odd(seen))
    if not are_most or seen.numbers == seen.given or seen.zeros:
        return None
    what = f"{seen.given - seen.numbers:,} of {seen.given:,} values are no numbers: {show(seen.odd[:3])}"
    if seen.distinct <= 20:
        return Proposal(seen.name, _categorical(seen, name), notes=(f"{what}; the others are, so it could be numeric",))
    if seen.odd_distinct > MOST_ODD:
        return None
    reason = f"it holds numbers, but {what}; as tokens most would be unseen later"
    named = " ".join(f"--missing {shlex.quote(value)}" for value in seen.odd)
    fix = (
        f"leave these values empty, or name them to infer and prepare ({named}, in Python missing={list(seen.odd)}; "
        f"in a DataFrame table = table.replace({dict.fromkeys(seen.odd)})), and it can be numeric"
    )
    return _without(seen, reason, True, (Numeric(name, "quantile", **_column(seen, name)),), (fix,))


def _only_marks_are_odd(seen: Evidence) -> bool:
    """Whether all values are numbers, but for some that are known to mean a missing one."""
    are_marks = all(text.strip().lower() in MISSING_MARKS for text in seen.odd)
    return not seen.is_list and 0 < seen.odd_distinct <= len(seen.odd) and are_marks


def _unique(seen: Evidence, name: str) -> Proposal | None:
    if seen.given < 100 or seen.distinct * 1.05 < seen.given or seen.fractions or seen.no_tokens:
        return None
    is_number = seen.numbers == seen.given and not seen.zeros and not seen.beyond
    is_index = is_number and seen.distinct * 2 > seen.most - seen.least + 1  # row numbers
    if is_number and (_hint(seen) == "amount" or (_hint(seen) is None and seen.order_deviations > 5 and not is_index)):
        return None
    every = "each row has another token" if seen.distinct == seen.rows else "hardly any two rows have the same token"
    is_unclear = is_number and _hint(seen) is None
    return _without(seen, every, instead=(Numeric(name, "quantile", **_column(seen, name)),) if is_unclear else ())


def _number(seen: Evidence, name: str) -> Proposal | None:
    if seen.numbers != seen.given or seen.zeros or seen.least is None:
        return None
    if seen.fractions or seen.no_tokens:
        return _numeric(seen, name)
    if seen.beyond:
        return None
    numeric, why = _is_amount(seen)
    if numeric:
        proposal = _numeric(seen, name)
        return dataclasses.replace(proposal, notes=(f"numeric, since {why}", *proposal.notes))
    doubt = "" if _hint(seen) else "in doubt "
    note = f"{doubt}categorical, since {why}; if it is an amount: type: numeric, transform: quantile"
    return Proposal(seen.name, _categorical(seen, name), notes=(note,))


def _is_amount(seen: Evidence) -> tuple[bool, str]:
    """Whether whole numbers are amounts, and why."""
    if _hint(seen):
        return _hint(seen) == "amount", f"its name says {'an amount' if _hint(seen) == 'amount' else 'a code'}"
    if seen.distinct <= 20:
        return False, f"it has {seen.distinct} values only"
    if seen.order_deviations > 5 and max(seen.order, seen.order_of_given) >= seen.token - 0.01:
        return True, f"the click rate follows its order (AUC {seen.order_of_given:.3f})"
    if seen.distinct * 2 > seen.given:
        return True, "hardly any of its values comes again"
    if _is_tailed(seen) and seen.distinct * 2 < seen.most - seen.least + 1:
        return True, "it has many small values, and few large ones with gaps between"
    return False, "its values come again and the click rate does not follow their order"


def _is_tailed(seen: Evidence) -> bool:
    return seen.distinct > 100 and seen.least >= -10 and seen.most > 20 * max(seen.median, 0)


def _hint(seen: Evidence) -> str | None:
    """What the name says: "amount", "code" or None. Its last word decides: a price type is a type; or the one before "per"."""
    words = [word for word in name_tokens(seen.name) if not word.isdigit()]
    if len(words) > 1 and words[0] in _PREFIXES:
        return _PREFIXES[words[0]]
    cut = next((at for at, word in enumerate(words) if word in ("per", "of", "in", "by", "since", "until") and at), len(words))
    last = words[cut - 1] if words else ""
    return "code" if last in _CODES else "amount" if last in _AMOUNTS else None


def _numeric(seen: Evidence, name: str) -> Proposal:
    if not seen.fractions and _is_tailed(seen):
        return Proposal(seen.name, Numeric(name, "log2_floor", **_column(seen, name)))
    asked = min(DEFAULT_BUCKETS, max(5, round(math.sqrt(seen.rows) / 3)))
    notes = (f"{asked} buckets asked, {seen.distinct} made: it has no more values",) if seen.distinct < asked else ()
    return Proposal(seen.name, Numeric(name, "quantile", buckets=asked, **_column(seen, name)), notes=notes)


def _categorical(seen: Evidence, name: str) -> Categorical:
    return Categorical(name, min_count=_min_count(seen.distinct), **_column(seen, name))


def _min_count(distinct: int) -> int:
    return 2 if distinct >= 10_000 else 1


def _column(seen: Evidence, name: str) -> dict[str, Any]:
    return {} if name == seen.name else {"column": seen.name}
