"""The embedded database, and what it draws."""

import ibis.backends.duckdb as backend

from tfctr.data.engine import Engine


def test_it_draws_no_progress_bar(tmp_path):
    with Engine(tmp_path) as engine:
        assert engine.connection.settings["enable_progress_bar"] == "false"


def test_a_progress_bar_that_is_off_is_left_alone(tmp_path, monkeypatch):
    changed = []
    monkeypatch.setattr(backend._Settings, "__getitem__", lambda settings, key: "false")
    monkeypatch.setattr(backend._Settings, "__setitem__", lambda settings, key, value: changed.append(key))
    with Engine(tmp_path):
        assert "enable_progress_bar" not in changed  # in a notebook without ipywidgets DuckDB refuses that
