"""Configuration files for a server say what was asked for; what no server could use is refused before any is written."""

import contextlib
import os
import shutil
import subprocess
from types import SimpleNamespace

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from kit.saved_models import export_examples, export_scorer, put

import tfctr
from tfctr.errors import ConfigError, StorageError
from tfctr.features import Categorical, Numeric
from tfctr.schema import Schema
from tfctr.serving import Batching, write_server_config
from tfctr.serving.publishing import configuration
from tfctr.serving.publishing.labels import load_versions, move_labels
from tfctr.serving.wire.protocol import BatchingParameters, ModelServerConfig, MonitoringConfig, SSLConfig


def read(path, message):
    """The message of a file, by protobuf's own parser."""
    return text_format.Parse(path.read_text(encoding="utf-8"), message())


@pytest.fixture
def base(models, tmp_path):
    """A base path with a version that can be batched."""
    put(tmp_path / "frappe", models / "light")
    return tmp_path / "frappe"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "config"


def test_the_fields_have_tensorflow_servings_numbers():
    """What a server reads: field numbers and types on the wire, written by hand after its .proto files."""
    wrapped = [{"value": value} for value in (64, 1000, 7, 2)]
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    batching = BatchingParameters(**dict(zip(names, wrapped, strict=True)), allowed_batch_sizes=[8, 64])
    assert batching.SerializeToString() == bytes.fromhex("0a020840120308e8071a0208072202080232020840")
    monitoring = MonitoringConfig(prometheus_config={"enable": True, "path": "/m"})
    assert monitoring.SerializeToString() == bytes.fromhex("0a06080112022f6d")
    tls = SSLConfig(server_key="k", server_cert="c", custom_ca="a", client_verify=True)
    assert tls.SerializeToString() == bytes.fromhex("0a016b1201631a01612001")


def test_models_and_metrics(base, out):
    flags = write_server_config(out, [base], models_at="/models/")
    assert flags[-2:] == [f"--model_config_file={out}/models.config", f"--monitoring_config_file={out}/monitoring.config"]
    labels = ("--model_config_file_poll_wait_seconds=10", "--allow_version_labels_for_unavailable_models=true")
    assert tuple(flags[:-2]) == (*configuration.CAREFUL_FLAGS, *labels)
    assert sorted(path.name for path in out.iterdir()) == [".models.config.lock", "models.config", "monitoring.config"]
    (model,) = read(out / "models.config", ModelServerConfig).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("frappe", "/models/frappe", "tensorflow")
    metrics = read(out / "monitoring.config", MonitoringConfig).prometheus_config
    assert (metrics.enable, metrics.path) == (True, "/monitoring/prometheus/metrics")
    assert (out / "models.config").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_other_models_and_labels_stay(base, out, models, tmp_path):
    put(base, models / "heavy")
    put(tmp_path / "ctr", models / "light")
    out.mkdir()
    load_versions(out / "models.config", base, {"stable": 1})
    move_labels(out / "models.config", base, {"stable": 1})
    (before,) = read(out / "models.config", ModelServerConfig).model_config_list.config
    for _ in range(2):
        write_server_config(out, [base, tmp_path / "ctr"])
        frappe, ctr = read(out / "models.config", ModelServerConfig).model_config_list.config
        assert frappe == before
        assert (ctr.name, ctr.base_path) == ("ctr", str(tmp_path / "ctr"))
    move_labels(out / "models.config", base, {"stable": None})
    with pytest.raises(ConfigError, match=r"has the model 'frappe' at '.*/frappe' already, not at '/models/frappe'"):
        write_server_config(out, [base], models_at="/models")


def test_batching(base, out):
    flags = write_server_config(out, [base], batching=Batching(64, 2000, allowed_batch_sizes=(8, 64)))
    assert flags[-2:] == [f"--batching_parameters_file={out}/batching.config", "--enable_batching=true"]
    parameters = read(out / "batching.config", BatchingParameters)
    assert (parameters.max_batch_size.value, parameters.batch_timeout_micros.value) == (64, 2000)
    assert list(parameters.allowed_batch_sizes) == [8, 64]
    assert not parameters.HasField("num_batch_threads")
    assert not parameters.HasField("max_enqueued_batches")
    write_server_config(out, [base], batching=Batching(64, 0, 3, 4))
    parameters = read(out / "batching.config", BatchingParameters)
    assert parameters.HasField("batch_timeout_micros")  # 0 is said, not left to the server
    assert (parameters.num_batch_threads.value, parameters.max_enqueued_batches.value) == (3, 4)


@pytest.mark.parametrize(
    ("values", "argument"),
    [
        ({"max_batch_size": 0}, "max_batch_size"),
        ({"max_batch_size": "64"}, "max_batch_size"),
        ({"max_batch_size": 2**31}, "max_batch_size"),
        ({"max_batch_size": 2**63}, "max_batch_size"),
        ({"batch_timeout_micros": -1}, "batch_timeout_micros"),
        ({"batch_timeout_micros": 2**63}, "batch_timeout_micros"),
        ({"num_batch_threads": 0}, "num_batch_threads"),
        ({"num_batch_threads": 2**63}, "num_batch_threads"),
        ({"max_enqueued_batches": 1.5}, "max_enqueued_batches"),
        ({"max_enqueued_batches": 2**63}, "max_enqueued_batches"),
        ({"allowed_batch_sizes": 64}, "allowed_batch_sizes"),
        ({"allowed_batch_sizes": None}, "allowed_batch_sizes"),
        ({"allowed_batch_sizes": "64"}, "allowed_batch_sizes"),
        ({"allowed_batch_sizes": (4,)}, "allowed_batch_sizes"),
        ({"allowed_batch_sizes": (64, 4, 64)}, "allowed_batch_sizes"),
        ({"allowed_batch_sizes": (4, 4, 64)}, "allowed_batch_sizes"),
        ({"allowed_batch_sizes": (0, 64)}, "allowed_batch_sizes"),
        ({"allowed_batch_sizes": (True, 64)}, "allowed_batch_sizes"),
        ({"allowed_batch_sizes": (64, 2**63)}, "allowed_batch_sizes"),
    ],
)
def test_batching_that_no_server_takes(values, argument):
    with pytest.raises(ConfigError, match=f"`{argument}` is "):
        Batching(**{"max_batch_size": 64, **values})


def test_warm_up_records_fit_into_a_batch():
    assert Batching(64).max_batch_size == 64
    with pytest.raises(
        ConfigError, match=r"`max_batch_size` is 63\.\n  fix: give at least 64: warm-up records have up to so many rows"
    ):
        Batching(63)


FEATURES = [Categorical("user", hash_buckets=9, size=12), Numeric("age", "scaled", mean=40.0, scale=10.0, size=4)]


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Exported models: a plain one, one with an optional input, one with `rank`."""
    folder = tmp_path_factory.mktemp("releases")
    model = tfctr.models.LR(Schema(features=FEATURES, label="click"))
    for name, options in {"plain": {}, "optional": {"optional": ["age"]}, "rank": {"candidates": ["user"]}}.items():
        tfctr.serving.export(model, folder / name, check=False, **options)
    return folder


@pytest.mark.slow
def test_every_signature_of_a_plain_model_can_be_batched(releases, out, monkeypatch):
    write_server_config(out, [releases / "plain"], batching=Batching(64))
    monkeypatch.setattr(configuration, "read_warmup", lambda _: [SimpleNamespace(rows=rows) for rows in (3, 65, 1)])
    with pytest.raises(ConfigError, match=r"`max_batch_size` is 64: .*plain/1 has a warm-up record of 65 rows"):
        write_server_config(out, [releases / "plain"], batching=Batching(64))


def test_every_model_of_the_file_must_be_one_that_can_be_batched(releases, out):
    plain, rank = releases / "plain", releases / "rank"
    write_server_config(out, [rank])
    with pytest.raises(ConfigError, match=r"has the model 'rank', too, .*\n  fix: give its folder, too"):
        write_server_config(out, [plain], batching=Batching(64))
    with pytest.raises(ConfigError, match="rank/1 cannot be batched"):
        write_server_config(out, [plain, rank], batching=Batching(64))
    assert not (out / "batching.config").exists()
    (out / "models.config").unlink()
    flags = write_server_config(out, [plain], batching=Batching(64))
    assert flags == write_server_config(out, [plain], batching=Batching(64))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("optional", r"optional/1 cannot be batched: signature 'embedding': requests may leave out age\."),
        (
            "rank",
            r"rank/1 cannot be batched: signature 'rank': the input 'age' has always 1 row, not those of the batch",
        ),
    ],
)
def test_models_that_cannot_be_batched(name, problem, releases, out):
    with pytest.raises(ConfigError, match=problem):
        write_server_config(out, [releases / name], batching=Batching(64))
    assert not out.exists()
    write_server_config(out, [releases / name])


def test_an_output_without_rows_cannot_be_batched(tmp_path, out):
    mean = lambda user, price: {"mean": tf.reduce_mean(price)}  # noqa: E731
    export_scorer(tmp_path / "mean" / "1", serving_default=mean)
    with pytest.raises(ConfigError, match="signature 'serving_default': the output 'mean' has no rows"):
        write_server_config(out, [tmp_path / "mean"], batching=Batching(64))


@pytest.mark.parametrize(
    ("policy", "batchable"),
    [
        ("", True),
        ("latest { num_versions: 1 }", True),
        ("latest { num_versions: 2 }", False),
        ("specific { versions: 1 versions: 3 }", True),
        ("specific { versions: 2 versions: 3 }", False),
        ("all {}", False),
    ],
)
def test_the_versions_that_are_served_are_looked_at(policy, batchable, base, out, tmp_path, models):
    export_examples(tmp_path / "ranking")  # its `rank` takes one bid
    put(base, tmp_path / "ranking")
    put(base, models / "light")
    out.mkdir()
    (out / "models.config").write_text(f"""model_config_list {{ config {{ name: "frappe" base_path: "{base}"
        model_platform: "tensorflow" model_version_policy {{ {policy} }} }} }}""")
    with contextlib.nullcontext() if batchable else pytest.raises(ConfigError, match="frappe/2 cannot be batched"):
        write_server_config(out, [base], batching=Batching(64))


# TLS


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another key; a key with a password; a request that is no certificate."""
    folder = tmp_path_factory.mktemp("other")
    new = ["openssl", "genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    subprocess.run([*new, "-out", folder / "key.pem"], check=True, capture_output=True)
    locked = ["openssl", "pkcs8", "-topk8", "-passout", "pass:secret", "-in", folder / "key.pem", "-out", folder / "locked.pem"]
    subprocess.run(locked, check=True, capture_output=True)
    (folder / "empty.pem").write_text("-----BEGIN NOTHING-----\n")
    (folder / "plain.txt").write_text("no PEM file")
    return folder


def test_tls(base, out, certificate):
    key, chain = certificate
    flags = write_server_config(out, [base], certificate=chain, key=key)
    assert flags[-1:] == [f"--ssl_config_file={out}/ssl.config"]
    config = read(out / "ssl.config", SSLConfig)
    assert (config.server_key, config.server_cert) == (key.read_text(), chain.read_text())
    assert (config.custom_ca, config.client_verify) == ("", False)
    write_server_config(out, [base], certificate=chain, key=key, root_certificates=chain)
    config = read(out / "ssl.config", SSLConfig)
    assert (config.custom_ca, config.client_verify) == (chain.read_text(), True)
    pair = (config.server_key.encode(), config.server_cert.encode())
    assert grpc.ssl_server_credentials([pair], config.custom_ca.encode(), require_client_auth=config.client_verify)


def test_a_key_is_never_readable_by_others(base, out, certificate, monkeypatch):
    key, chain = certificate
    out.mkdir()
    (out / "ssl.config").write_text("")
    os.chmod(out / "ssl.config", 0o644)
    modes, replace = {}, os.replace

    def look(source, target):
        modes[os.path.basename(target)] = os.stat(source).st_mode & 0o777
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    mask = os.umask(0)
    try:
        write_server_config(out, [base], certificate=chain, key=key)
    finally:
        os.umask(mask)
    assert modes == {"models.config": 0o666, "monitoring.config": 0o666, "ssl.config": 0o600}
    assert (out / "ssl.config").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("files", "error", "said"),
    [
        ({"key": "other/key.pem"}, ConfigError, "`certificate` and `key` do not belong together"),
        ({"key": "other/locked.pem"}, ConfigError, "`certificate` and `key` do not belong together"),
        ({"key": "other/plain.txt"}, ConfigError, "`key`: .*plain.txt is no PEM file"),
        ({"key": None}, ConfigError, "`key` is None"),
        ({"certificate": None}, ConfigError, "`certificate` is None"),
        ({"certificate": "other/key.pem"}, ConfigError, "`certificate` and `key` do not belong together"),
        ({"certificate": "other/absent.pem"}, StorageError, "`certificate`: cannot read "),
        ({"root_certificates": "other/key.pem"}, ConfigError, "key.pem holds no certificate"),
        ({"root_certificates": "other/empty.pem"}, ConfigError, "empty.pem holds no certificate"),
        ({"key": None, "certificate": None, "root_certificates": "chain"}, ConfigError, "`certificate` is None"),
    ],
)
def test_files_that_make_no_tls(files, error, said, base, out, certificate, other):
    given = dict(zip(("key", "certificate"), certificate, strict=True)) | files
    places = {"other": other, "chain": certificate[1]}
    given = {name: _place(path, places) for name, path in given.items()}
    with pytest.raises(error, match=said) as raised:
        write_server_config(out, [base], **given)
    assert "PRIVATE" not in str(raised.value)
    assert not out.exists()


def _place(path, places):
    if not isinstance(path, str):
        return path
    folder, _, name = path.partition("/")
    return places[folder] / name if name else places[folder]


# names


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"models_at": "models"}, "cannot find the model 'frappe' at 'models/frappe'"),
        ({"models_at": "/a\nb"}, r"at '/a\\nb/frappe'"),
        ({"models_at": "/\udcff"}, r"at '/\\udcff/frappe'"),
        ({"metrics_path": "metrics"}, "`metrics_path` is 'metrics'"),
        ({"metrics_path": '/a" enable: false #'}, "`metrics_path` is "),
        ({"metrics_path": 7}, "`metrics_path` is 7"),
    ],
)
def test_hostile_names(options, problem, base, out):
    with pytest.raises(ConfigError, match=problem):
        write_server_config(out, [base], **options)
    assert not out.exists()


def test_text_is_quoted(base, out):
    write_server_config(out, [base], models_at='gs://bucket/a"b } é\\')
    (model,) = read(out / "models.config", ModelServerConfig).model_config_list.config
    assert model.base_path == 'gs://bucket/a"b } é\\/frappe'


def test_folders_that_are_no_models(base, out, tmp_path):
    with pytest.raises(ConfigError, match="there are no models"):
        write_server_config(out, [])
    shutil.copytree(base, tmp_path / "b" / "frappe")
    with pytest.raises(ConfigError, match="two models are named 'frappe'"):
        write_server_config(out, [base, tmp_path / "b" / "frappe"], models_at="/models")
    with pytest.raises(ConfigError, match="'7' cannot be the name of a served model"):
        write_server_config(out, [tmp_path / "7"])
    with pytest.raises(StorageError, match="empty holds no published version"):
        write_server_config(out, [tmp_path / "empty"])
    assert not out.exists()
    out.mkdir()
    (out / "models.config").write_text("model_config_list { config { nam: 'frappe' } }")
    with pytest.raises(ConfigError, match=r"models.config is not a model configuration file"):
        write_server_config(out, [base])
