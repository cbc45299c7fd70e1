"""Made tables whose clicks follow from their columns, each of another kind: `TABLES[name](rng, rows)` is `{column: array}`."""

import numpy as np

ROWS = {"ids": 50_000, "numbers": 50_000, "rare": 300_000}


def ids(rng, rows):
    """Many ids: a user and an item, each with a taste of its own and tastes in common; a few columns that say little."""
    users, items = _popular(rng, 4_000, rows), _popular(rng, 1_500, rows)
    category = rng.integers(0, 30, 1_500)
    tastes, qualities = rng.normal(0, 0.7, (4_000, 4)), rng.normal(0, 0.7, (1_500, 4))
    price = np.round(np.exp(rng.normal(2, 1, 1_500)), 2)
    logit = -1.2 + np.sum(tastes[users] * qualities[items], axis=1) - 0.2 * np.log(price[items])
    logit += rng.normal(0, 0.6, 4_000)[users] + rng.normal(0, 0.7, 1_500)[items] + 0.5 * np.sin(category[items])
    columns = {"user": _named("u", users), "item": _named("i", items), "category": _named("c", category[items])}
    return {**columns, "price": price[items], "hour": rng.integers(0, 24, rows), "click": _clicks(rng, logit)}


def numbers(rng, rows):
    """Mostly numbers, as in a census: some of them nearly always 0 or 40, steps, and two columns of text."""
    age, education = rng.integers(17, 90, rows), rng.integers(1, 17, rows)
    hours = np.where(rng.random(rows) < 0.5, 40, rng.integers(1, 99, rows))
    gain = np.where(rng.random(rows) < 0.92, 0, np.round(np.exp(rng.normal(8, 1.2, rows)))).astype(int)
    loss = np.where(rng.random(rows) < 0.95, 0, rng.integers(100, 3_000, rows))
    balance, rate = np.round(rng.normal(0, 1_000, rows), 2), np.round(rng.beta(2, 5, rows), 4)
    job, status = rng.integers(0, 14, rows), rng.integers(0, 6, rows)
    logit = -3.2 + 0.09 * np.minimum(age - 17, 30) - 0.04 * np.maximum(age - 50, 0) + 0.32 * (education - 9)
    logit += 0.03 * (hours - 40) + 1.2 * (gain > 3_000) + 1.5 * (gain > 7_000) + 0.8 * (loss > 1_500)
    logit += np.where(balance > 0, 0.6, -0.6) * np.sin(6 * rate) + rng.normal(0, 0.6, 14)[job] + rng.normal(0, 0.8, 6)[status]
    columns = {"age": age, "education": education, "hours": hours, "gain": gain, "loss": loss, "balance": balance, "rate": rate}
    return {**columns, "job": _named("j", job), "status": _named("s", status), "click": _clicks(rng, logit)}


def rare(rng, rows):
    """One click in 500 rows, as of advertisements: advertiser, site and device count, and the device in the evening."""
    advertiser, site = _popular(rng, 300, rows), _popular(rng, 2_000, rows)
    device, hour, bid = (
        rng.integers(0, 5, rows),
        rng.integers(0, 24, rows),
        np.round(np.exp(rng.normal(0, 1, rows)), 2),
    )
    logit = rng.normal(0, 0.9, 300)[advertiser] + rng.normal(0, 0.8, 2_000)[site]
    logit += 0.35 * device * (hour > 18) + 0.4 * np.log(bid)
    logit += _intercept(logit, 0.002)
    columns = {"advertiser": _named("a", advertiser), "site": _named("s", site), "device": _named("d", device)}
    return {**columns, "hour": hour, "bid": bid, "click": _clicks(rng, logit)}


TABLES = {"ids": ids, "numbers": numbers, "rare": rare}


def _popular(rng, count, rows):
    """Codes below `count`, of which the first are drawn most often."""
    weights = 1 / np.arange(1, count + 1)
    return rng.choice(count, rows, p=weights / weights.sum())


def _named(prefix, codes):
    return np.char.add(prefix, codes.astype(str))


def _clicks(rng, logit):
    return (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(int)


def _intercept(logit, rate):
    """What to add to the logits for this share of clicks, by bisection."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(1 / (1 + np.exp(-logit - middle))) < rate else (low, middle)
    return low
