"""Labels move in two steps, and nothing else in the configuration file changes."""

import threading

import pytest
from google.protobuf import text_format
from kit.saved_models import put

from tfctr.errors import ConfigError, StorageError
from tfctr.serving.publishing import configuration, labels
from tfctr.serving.publishing.configuration import read_config
from tfctr.serving.publishing.labels import load_versions, move_labels, versions_in_use, wait_until_available
from tfctr.serving.runtime.stand_in import LocalServer
from tfctr.serving.store.folders import HISTORY, add_version, pin, pinned_versions, prune
from tfctr.serving.wire.protocol import ModelServerConfig
from tfctr.storage import locked


@pytest.fixture
def frappe(tmp_path):
    """A base path with seven versions that are no models."""
    base = tmp_path / "frappe"
    for number in range(7):
        add_version(base, lambda folder, number=number: (folder / "model").write_text(str(number)))
    return base


@pytest.fixture
def config(tmp_path):
    return tmp_path / "models.config"


def model(config, name="frappe"):
    """`(base_path, versions, labels)` of a model, as the real message has them."""
    parsed = text_format.Parse(config.read_text(), ModelServerConfig())
    (found,) = [model for model in parsed.model_config_list.config if model.name == name]
    assert found.model_platform == "tensorflow"
    return found.base_path, list(found.model_version_policy.specific.versions), dict(found.version_labels)


def test_a_label_moves_in_two_steps(frappe, config):
    base_path = "/models/frappe"
    assert load_versions(config, frappe, {"stable": 5}, base_path) == [5, 7]  # 7 was served by its number alone
    assert model(config) == (base_path, [5, 7], {})
    assert move_labels(config, frappe, {"stable": 5}) == {"stable": 5}
    assert model(config) == (base_path, [5, 7], {"stable": 5})

    assert load_versions(config, frappe, {"stable": "6"}) == [5, 6, 7]
    assert model(config) == (base_path, [5, 6, 7], {"stable": 5})  # old and new are loaded, and the label stays
    assert move_labels(config, frappe, {"stable": "6"}) == {"stable": 6}
    assert model(config) == (base_path, [5, 6, 7], {"stable": 6})  # the old one stays for the way back

    assert load_versions(config, frappe, {"canary": 7}) == [6, 7]
    assert move_labels(config, frappe, {"canary": 7}) == {"canary": 7, "stable": 6}
    assert load_versions(config, frappe, {"stable": 7, "canary": None}) == [6, 7]
    assert move_labels(config, frappe, {"stable": 7, "canary": None}) == {"stable": 7}
    assert versions_in_use(config, frappe) == {6, 7}


def test_what_a_file_pins_is_not_removed(frappe, config):
    load_versions(config, frappe, {"stable": 2})
    other = config.with_name("other.config")
    load_versions(other, frappe, {"stable": 3})
    assert pinned_versions(frappe) == {str(config): [2, 7], str(other): [3, 7]}
    assert prune(frappe, keep=2) == [1, 4, 5]
    move_labels(config, frappe, {"stable": 2})
    load_versions(config, frappe, {"stable": None})
    move_labels(config, frappe, {"stable": None})
    assert pinned_versions(frappe) == {str(other): [3, 7]}
    assert prune(frappe, keep=2) == [2]


def test_a_file_says_nothing_that_is_not_pinned(frappe, config):
    (frappe / HISTORY).write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*tfctr-history"):
        load_versions(config, frappe, {"stable": 2})
    assert not config.exists()


def test_files_that_pin_at_once_all_do(frappe, tmp_path):
    start = threading.Barrier(8)

    def work(number):
        start.wait()
        pin(frappe, tmp_path / str(number), {number})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pinned_versions(frappe) == {str(tmp_path / str(number)): [number] for number in range(1, 9)}


def test_two_who_move_labels_at_once_lose_no_pin(frappe, config, monkeypatch):
    """The second one begins while the first one has read the file, and not yet written it."""
    others = []

    def pin_late(*arguments):
        if not others:
            others.append(threading.Thread(target=load_versions, args=(config, frappe, {"canary": 3})))
            others[0].start()
            others[0].join(timeout=0.5)
        pin(*arguments)

    monkeypatch.setattr(labels, "pin", pin_late)
    load_versions(config, frappe, {"stable": 2})
    others[0].join()
    (model,) = read_config(config).model_config_list.config
    assert pinned_versions(frappe) == {str(config): [*model.model_version_policy.specific.versions]}
    assert 3 in model.model_version_policy.specific.versions


def test_clients_without_a_label_keep_their_version(frappe, config):
    """They get the highest version that is loaded, until a label moves above it."""
    for labels_, loaded in (
        ({"stable": 1}, [1, 7]),
        ({"canary": 2}, [1, 2, 7]),
        ({"stable": 2}, [1, 2, 7]),
        ({"canary": 3}, [2, 3, 7]),
    ):
        assert load_versions(config, frappe, labels_) == loaded
        move_labels(config, frappe, labels_)
    add_version(frappe, lambda folder: (folder / "model").write_text("8"))
    assert load_versions(config, frappe, {"stable": 8}) == [2, 3, 7, 8]  # 7 answers until 8 is loaded
    move_labels(config, frappe, {"stable": 8})
    assert load_versions(config, frappe, {"canary": 2}) == [2, 3, 8]


def test_without_labels_the_highest_version_is_served_again(frappe, config):
    for labels_ in ({"stable": 5}, {"canary": 6}):
        load_versions(config, frappe, labels_)
        move_labels(config, frappe, labels_)
    for gone, loaded, left, policy in (
        ({"canary": None}, [5, 6, 7], {"stable": 5}, "specific"),
        ({"stable": None}, [5, 7], {}, None),  # an empty list would unload the model
        ({"stable": None}, [7], {}, None),
        ({"canary": None}, [7], {}, None),
    ):
        assert load_versions(config, frappe, gone) == loaded
        assert move_labels(config, frappe, gone) == left
        (found,) = read_config(config).model_config_list.config
        assert found.model_version_policy.WhichOneof("policy_choice") == policy
    with pytest.raises(ConfigError, match="has no model 'third'"):
        move_labels(config, frappe.with_name("third"), {"stable": None})


POLICIES = {
    "all {}": ([1, 2, 3, 4, 5, 6, 7], "all"),
    "latest { num_versions: 3 }": ([2, 7], "specific"),
    "specific { versions: 3 versions: 4 }": ([2, 4], "specific"),
    "specific { versions: 8 }": ([2], "specific"),
    "specific {}": ([2], "specific"),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_by_hand(policy, frappe, config):
    loaded, kind = POLICIES[policy]
    config.write_text(f"""model_config_list {{ config {{
        name: "frappe" base_path: "/f" model_platform: "tensorflow" model_version_policy {{ {policy} }} }} }}""")
    assert load_versions(config, frappe, {"stable": 2}) == loaded
    assert move_labels(config, frappe, {"stable": 2}) == {"stable": 2}
    (found,) = read_config(config).model_config_list.config
    assert found.model_version_policy.WhichOneof("policy_choice") == kind
    assert versions_in_use(config, frappe) == set(loaded)


def test_served_versions_are_in_use(frappe, config):
    text = """model_config_list { config { name: "frappe" base_path: "/f" model_platform: "tensorflow"
        model_version_policy { %s } version_labels { key: "old" value: 1 } } }"""
    for policy, used in (("", {1, 7}), ("latest { num_versions: 2 }", {1, 6, 7}), ("all {}", {1, 2, 3, 4, 5, 6, 7})):
        config.write_text(text % policy)
        assert versions_in_use(config, frappe) == used


def test_the_first_step_cannot_be_left_out(frappe, config):
    with pytest.raises(ConfigError, match=r"has no model 'frappe'.\n  fix: .*--step load"):
        move_labels(config, frappe, {"stable": 5})
    load_versions(config, frappe, {"stable": 6})
    with pytest.raises(ConfigError, match=r"does not load version 4 of frappe yet.\n  fix: .*--step load"):
        move_labels(config, frappe, {"stable": 4})
    assert model(config)[2] == {}


def test_other_models_stay_as_they_are(frappe, config):
    config.write_text(
        """# by hand
        model_config_list {
          config { name: "other" base_path: "/o" model_platform: "tensorflow" model_version_policy { latest {} } }
          config { name: "frappe" base_path: "/f" model_platform: "tensorflow" model_version_policy { latest {} } }
        }"""
    )
    other = read_config(config).model_config_list.config[0]
    load_versions(config, frappe, {"stable": 3}, "/ignored")
    assert model(config) == ("/f", [3, 7], {})
    assert read_config(config).model_config_list.config[0] == other
    with pytest.raises(ConfigError, match=r"models\.config has no model 'third'"):
        versions_in_use(config, frappe.with_name("third"))


@pytest.mark.parametrize("label", ["", "Stable", "7", "a b", "a\nb", "stäble", "-a", "a" * 64, None, 7])
def test_hostile_labels(label, frappe, config):
    with pytest.raises(ConfigError, match="cannot be a label"):
        load_versions(config, frappe, {label: 5})
    assert not config.exists()


@pytest.mark.parametrize("version", ["007", "../5", 2**63, "", "latest", True])
def test_hostile_numbers(version, frappe, config):
    with pytest.raises(ConfigError, match="is not a version's number"):
        load_versions(config, frappe, {"stable": version})
    assert not config.exists()


def test_only_whole_versions_get_a_label(frappe, config):
    with pytest.raises(StorageError, match="has no version 8"):
        load_versions(config, frappe, {"stable": 8})
    (frappe / "5" / "model").write_text("changed")
    with pytest.raises(StorageError, match="SHA-256 differs"):
        load_versions(config, frappe, {"stable": 5})
    with pytest.raises(ConfigError, match="there are no labels"):
        load_versions(config, frappe, {})
    assert not config.exists()


@pytest.mark.parametrize("text", ["model_config_list {", "model_config_lst {}", "\0", "name: 7"])
def test_a_file_that_is_no_configuration_stays(text, frappe, config):
    config.write_text(text)
    with pytest.raises(ConfigError, match="is not a model configuration file"):
        load_versions(config, frappe, {"stable": 5})
    assert config.read_text() == text
    config.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not a model configuration file"):
        read_config(config)
    with pytest.raises(StorageError, match="cannot read"):
        read_config(frappe)


@pytest.mark.parametrize(
    "text", ["", "model_config_list { config { name: 'frappe' base_path: '/f' model_platform: 'tensorflow' } }"]
)
def test_what_another_process_writes_meanwhile_stays(text, frappe, config, monkeypatch):
    config.write_text(text)
    other, read = frappe.with_name("other"), configuration.read_config
    add_version(other, lambda folder: (folder / "model").write_text("1"))

    def interrupted(path):
        monkeypatch.undo()
        found = read(path)
        config.write_text(
            f"model_config_list {{ config {{ name: 'other' base_path: '{other}' model_platform: 'tensorflow' }} }}"
        )  # by another tool
        return found

    monkeypatch.setattr(configuration, "read_config", interrupted)
    with pytest.raises(StorageError, match=r"another process has changed .*models\.config meanwhile"):
        load_versions(config, frappe, {"stable": 5})
    assert model(config, "other") == (str(other), [], {})
    load_versions(config, other, {"stable": 1})
    load_versions(config, frappe, {"stable": 5})
    assert (model(config)[1], model(config, "other")[1]) == ([5, 7], [1])


def test_one_writer_at_a_time(frappe, config, monkeypatch):
    """The file is compared and replaced under a lock."""
    held, write = [], configuration.write_config

    def look(path, message):
        with pytest.raises(StorageError, match="held"), locked(config.with_name(".models.config.lock"), busy="held"):
            pass
        held.append(path)
        write(path, message)

    monkeypatch.setattr(configuration, "write_config", look)
    load_versions(config, frappe, {"stable": 5})
    assert held == [config]


def test_waiting_for_a_server(base, models, monkeypatch):
    monkeypatch.setattr(labels, "_POLL_SECONDS", 0.05)
    with LocalServer(base, port=0, poll_seconds=0.05) as server:
        wait_until_available(server.target, base, {"stable": 1})
        put(base, models / "heavy")
        wait_until_available(server.target, base, {"stable": 2}, timeout=60)
        assert server.version == 2
        with pytest.raises(StorageError, match=r"does not serve version 1 after 0\.2 s: version 1 is not known"):
            wait_until_available(server.target, base, {"stable": 1}, timeout=0.2)
        put(base, models / "broken")
        with pytest.raises(StorageError, match=r"cannot load version 3 of frappe: .*corrupt"):
            wait_until_available(server.target, base, {"stable": 3}, timeout=60)
    wait_until_available("127.0.0.1:1", base, {"stable": None})  # nothing to wait for
    with pytest.raises(StorageError, match=r"does not serve version 1 after 0\.1 s: no server answers"):
        wait_until_available("127.0.0.1:1", base, {"stable": 1}, timeout=0.1)
    with pytest.raises(ConfigError, match="`timeout` is 0"):
        wait_until_available("127.0.0.1:1", base, {"stable": 1}, timeout=0)
