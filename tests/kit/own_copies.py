"""Made tables with the columns of the papers' data sets, as a user's own copies of them: `write(name, folder, rows)`."""

import csv

import numpy as np

COLUMNS = {
    "frappe": "label user item daytime weekday isweekend homework cost weather country city",
    "ml-1m": "label user_id gender age occupation movie_id",
    "ml-tag": "label user_id item_id tag_id",
    "criteo": " ".join(["label", *(f"I{number}" for number in range(1, 14)), *(f"C{number}" for number in range(1, 27))]),
    "avazu": "id click hour C1 banner_pos site_id site_domain site_category app_id app_domain app_category device_id device_ip"
    " device_model device_type device_conn_type C14 C15 C16 C17 C18 C19 C20 C21",
    "kkbox": "label msno song_id source_system_tab source_screen_name source_type city gender registered_via language genre_ids"
    " artist_name isrc bd",
}
SPECIAL = {
    "hour": lambda rng: f"1410{rng.integers(21, 31)}{rng.integers(0, 24):02}",
    "genre_ids": lambda rng: "|".join(map(str, rng.integers(1, 9, rng.integers(0, 5)))),
    "isrc": lambda rng: f"{rng.choice(['US', 'TW', 'GB'])}{rng.integers(10**6)}",
    "bd": lambda rng: str(rng.choice(["", "-3", "0", "1", "10", "11", "60", "61", "95", "96", "200"])),
}


def write(name, folder, rows=300):
    """Write `train.csv`, `valid.csv` and `test.csv`, in which each token is one of five, and return the folder."""
    folder.mkdir()
    columns = COLUMNS[name].split()
    for number, split in enumerate(("train", "valid", "test")):
        rng = np.random.default_rng(number)
        with open(folder / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for row in range(rows):
                label = int(rng.random() < 0.4) if row > 1 else row
                writer.writerow([cell(column, rng, label) for column in columns])
    return folder


def cell(column, rng, label):
    if column in ("label", "click"):
        return label
    if column in SPECIAL:
        return SPECIAL[column](rng)
    return int(rng.integers(5)) + 2 * label * int(rng.random() < 0.3)
