"""What hostile files cost before they are refused: memory and time, of each corpus in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
from kit.bombs import BOMBS
from kit.hostile_models import ACTS, KINDS, LAYERS, OUTSIDE, export_acting, with_layer, with_member, with_weights_elsewhere
from kit.hostile_texts import FILES
from kit.places import KIT
from kit.saved_models import export_scorer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

GOOD = {
    "run.yaml": "model: {name: DNN}",
    "schema.yaml": "{label: click, features: [{name: user, type: categorical}]}",
    "schema.json": '{"label": "click", "features": [{"name": "user", "type": "categorical"}]}',
    "models.config": "model_config_list {}",
}
SCRIPT = KIT / "hostile_loads.py"


def check(good, hostile, folder, most_grown, most_seconds):
    """Load them all in another process: none of the hostile files is taken, or takes more MiB or seconds than these."""
    command = [sys.executable, str(SCRIPT), *map(str, good), "--", *map(str, hostile)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-4000:]
    figures = json.loads(run.stdout.splitlines()[-1])
    assert set(figures["seconds"]) == set(map(str, hostile))
    assert figures["grown"] <= most_grown
    assert max(figures["seconds"].values()) <= most_seconds, figures["seconds"]


def folders(tmp_path):
    """One new folder after the other."""
    for number in range(1000):
        (tmp_path / str(number)).mkdir()
        yield tmp_path / str(number)


def written(folder, file, text):
    (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / file


def test_texts(tmp_path):
    new = folders(tmp_path)
    good = [written(next(new), *item) for item in GOOD.items()]
    hostile = [written(next(new), file, text) for file, cases in FILES.items() for text, _ in cases.values()]
    # A busy processor reads "a list of hours" for five seconds, until it has more tokens than may be; the others, below one.
    check(good, hostile, tmp_path, most_grown=200, most_seconds=20)


def test_bombs(saved, tmp_path):
    new = folders(tmp_path)
    check([saved], [make(saved, next(new) / "bomb.keras") for make in BOMBS.values()], tmp_path, most_grown=200, most_seconds=5)


@pytest.mark.filterwarnings("ignore")  # TensorFlow's own, of saving operations that act
def test_models(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new = folders(tmp_path)
    hostile = [with_layer(name, next(new)) for name in LAYERS]
    hostile += [with_weights_elsewhere(kind, saved, next(new)) for kind in KINDS]
    hostile += [with_member(name, saved, next(new)) for name in OUTSIDE]
    good = next(new)
    export_scorer(good)
    for name in ACTS:
        hostile.append(next(new))
        export_acting(name, hostile[-1])
    check([saved, good], hostile, tmp_path, most_grown=500, most_seconds=5)
