"""The local stand-in's versions: which one is served, and what is not, also while requests run."""

import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from kit.saved_models import WEIGHTS, client_of, export_scorer, probabilities, put, texts

from tfctr.errors import StorageError
from tfctr.serving.runtime.served_model import ServedModel
from tfctr.serving.runtime.stand_in import LocalServer


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_new_version_is_served(base, models):
    with LocalServer(base, port=0, poll_seconds=0.05) as server, client_of(server) as client:
        assert client.predict({"user": ["60"], "price": [2.0]})[0] == pytest.approx(probabilities(["60"], [2.0], 0.5)[0])
        put(base, models / "heavy")
        wait_for(lambda: server.version == 2)
        assert client.predict({"user": ["60"], "price": [2.0]})[0] == pytest.approx(probabilities(["60"], [2.0], 0.75)[0])


def test_a_broken_version_leaves_the_old_one(base, models):
    with LocalServer(base, port=0, poll_seconds=0.05) as server, client_of(server) as client:
        put(base, models / "broken")
        wait_for(lambda: len(client.status()) == 2)
        broken, old = client.status()
        assert (broken["version"], broken["state"]) == (2, "END")
        assert "corrupt" in broken["error"]
        assert old == {"version": 1, "state": "AVAILABLE", "error": ""}
        assert client.predict({"user": ["60"], "price": [0.0]}).tolist() == [0.5]
        # Repaired in place it is still not tried again: a published version is never edited. A new number is.
        shutil.copy(models / "heavy" / "saved_model.pb", base / "2" / "saved_model.pb")
        time.sleep(0.3)
        assert server.version == 1
        put(base, models / "heavy")
        wait_for(lambda: server.version == 3)


def test_a_failed_version_is_forgotten_once_it_is_gone(base, models):
    with LocalServer(base, port=0, poll_seconds=0.05) as server, client_of(server) as client:
        put(base, models / "broken")
        wait_for(lambda: len(client.status()) == 2)
        shutil.rmtree(base / "2")
        wait_for(lambda: len(client.status()) == 1)
        assert put(base, models / "heavy").name == "2"
        wait_for(lambda: server.version == 2)


def test_a_failed_version_that_is_published_again_is_tried_again(base, models):
    put(base, models / "broken")
    (base / "2").rename(base.with_name("broken"))
    with LocalServer(base, port=0, poll_seconds=3600) as server:
        base.with_name("broken").rename(base / "2")
        server._model.refresh()
        assert (server.version, list(server._model.failed)) == (1, [2])
        (base / "2").rename(base.with_name("gone"))  # and another one under its number, before the next poll
        assert put(base, models / "heavy").name == "2"
        server._model.refresh()
        assert (server.version, list(server._model.failed)) == (2, [])


def test_looking_for_versions_survives_any_error_and_ends_with_the_server(base, models, monkeypatch, caplog):
    refresh, errors = ServedModel.refresh, iter([RuntimeError("surprise")])

    def fail_once(model, first=False):
        for error in () if first else errors:
            raise error
        refresh(model, first)
        time.sleep(0 if first else 0.5)  # the server's end finds the thread at work

    monkeypatch.setattr(ServedModel, "refresh", fail_once)
    with LocalServer(base, port=0, poll_seconds=0.05) as server:
        put(base, models / "heavy")
        wait_for(lambda: server.version == 2)
    assert "RuntimeError: surprise" in caplog.text
    assert not server._poller.is_alive()


def test_removed_versions(base, models):
    put(base, models / "heavy")
    with LocalServer(base, port=0, poll_seconds=0.05) as server, client_of(server) as client:
        assert server.version == 2
        shutil.rmtree(base / "2")
        wait_for(lambda: server.version == 1)
        base.rename(base.with_name("elsewhere"))  # a base path that is away for a moment unloads nothing
        time.sleep(0.3)
        assert client.predict({"user": ["60"], "price": [0.0]}).tolist() == [0.5]
        base.mkdir()  # an empty one does
        wait_for(lambda: server.version is None)
        with pytest.raises(StorageError, match="Servable not found"):
            client.predict({"user": ["60"], "price": [0.0]})


WAIT, MEET, RELEASE = 0.0, 1.0, 2.0  # prices


def gated(user, price):
    """Requests that wait within the graph: WAIT until there is a RELEASE, MEET until there is a WAIT. All answer 0.25."""

    def queue(name):
        return tf.raw_ops.FIFOQueueV2(component_types=["float32"], shared_name=name)

    def give(name):
        with tf.control_dependencies([tf.raw_ops.QueueEnqueueV2(handle=queue(name), components=[0.25])]):
            return tf.constant(0.25)

    def take(name):
        return tf.raw_ops.QueueDequeueV2(handle=queue(name), component_types=["float32"])[0]

    def wait():
        with tf.control_dependencies([give("met")]):
            return take("released")

    kinds = [wait, lambda: take("met"), lambda: give("released")]
    return {"probability": tf.fill(tf.shape(price), tf.switch_case(tf.cast(price[0], "int32"), kinds))}


def test_a_version_is_freed_once_its_last_request_is_answered(models, tmp_path):
    base = tmp_path / "frappe"
    export_scorer(base / "1", serving_default=gated)

    def ask(kind):
        return old().run("serving_default", {"user": texts("60"), "price": np.array([kind])})["probability"].tolist()

    with LocalServer(base, port=0, poll_seconds=0.05) as server, client_of(server) as client, ThreadPoolExecutor() as threads:
        old = weakref.ref(server._model.loaded[1])
        waiting = threads.submit(client.predict, {"user": ["60"], "price": [WAIT]})
        assert ask(MEET) == [0.25]
        put(base, models / "heavy")
        wait_for(lambda: [known["version"] for known in client.status() if known["state"] == "AVAILABLE"] == [2])
        assert client.predict({"user": ["60"], "price": [0.0]}).tolist() == [0.5]
        assert not waiting.done()
        assert ask(RELEASE) == [0.25]
        assert waiting.result().tolist() == [0.25]
        wait_for(lambda: old() is None)


def test_requests_never_fail_while_versions_change(base, models):
    rows = {"user": ["60"] * 20, "price": np.linspace(-4, 4, 20)}
    bits, failures, stop = [set() for _ in range(4)], [], threading.Event()
    counts = [0] * 4

    def hammer(worker):
        with client_of(server) as client:
            while not stop.is_set():
                try:
                    bits[worker].add(client.predict(rows).tobytes())
                except Exception as error:
                    failures.append(error)
                counts[worker] += 1

    with LocalServer(base, port=0, poll_seconds=0.02) as server, client_of(server) as watcher:
        threads = [threading.Thread(target=hammer, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        try:
            for version, name in enumerate(["heavy", "light", "broken", "heavy", "light", "heavy"], start=2):
                put(base, models / name)
                wait_for(lambda version=version: any(known["version"] == version for known in watcher.status()))
            wait_for(lambda: sum(counts) >= 1000)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert server.version == 7
    assert failures == []
    expected = set()
    for name in WEIGHTS:
        score = tf.saved_model.load(models / name).signatures["serving_default"]
        answer = score(user=tf.constant(rows["user"]), price=tf.constant(rows["price"]))
        expected.add(answer["probability"].numpy().tobytes())
    assert set.union(*bits) == expected
