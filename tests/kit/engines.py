"""Other engines for tests: a Postgres server of its own, and a local Spark, each for as long as a test session lasts."""

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

from tfctr.storage import sha256

_PROGRAMS = Path("/usr/lib/postgresql")


def _program(name):
    """A program of a Postgres server; the test is skipped where there is none."""
    found = shutil.which(name) or next((str(path) for path in sorted(_PROGRAMS.glob(f"*/bin/{name}"), reverse=True)), None)
    return found or pytest.skip(f"no {name}: install a Postgres server")


def _not_root():
    """What subprocesses need to be another user, as Postgres demands, where this one is root."""
    if os.getuid() != 0:
        return {}
    users = {user.pw_name: user for user in pwd.getpwall()}
    user = users.get("postgres") or users.get("nobody") or pytest.skip("Postgres refuses root, and there is no other user")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgres():
    """An Ibis connection to an empty database of a server that listens on no port."""
    pytest.importorskip("psycopg", reason='pip install "tfctr[postgres]"')
    import ibis

    initdb, control, options = _program("initdb"), _program("pg_ctl"), _not_root()
    with tempfile.TemporaryDirectory(
        prefix="tfctr-pg-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:  # a short path: of a socket
        os.chmod(folder, 0o777)
        quiet = {**options, "check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        subprocess.run([initdb, "-D", f"{folder}/data", "-A", "trust", "-U", "tfctr", "-E", "UTF8", "--no-sync"], **quiet)
        server = ["-D", f"{folder}/data", "-l", f"{folder}/log", "-o", f"-k {folder} -c listen_addresses='' -c fsync=off", "-w"]
        subprocess.run([control, *server, "start"], **quiet)
        try:
            connection = ibis.postgres.connect(host=folder, user="tfctr", database="postgres")
            yield connection
            connection.disconnect()
        finally:
            subprocess.run([control, "-D", f"{folder}/data", "-m", "immediate", "stop"], **quiet)


@pytest.fixture(scope="session")
def spark():
    """An Ibis connection to a Spark in this machine, whose driver has 1 GiB."""
    pytest.importorskip("pyspark", reason='pip install "tfctr[spark]"')
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("no Java")
    import ibis
    from pyspark.sql import SparkSession

    with tempfile.TemporaryDirectory(prefix="tfctr-spark-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        settings = {
            "spark.ui.enabled": "false",
            "spark.driver.memory": "1g",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.sql.shuffle.partitions": "4",
            "spark.sql.warehouse.dir": folder,
            "spark.local.dir": folder,
        }
        builder = SparkSession.builder.master("local[2]")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, value in settings.items():
                builder = builder.config(name, value)
            session = builder.getOrCreate()
            connection = ibis.pyspark.connect(session)
        yield connection
        with contextlib.suppress(Exception):
            session.stop()


def put(connection, table, folder):
    """A new table of an engine with the rows of an Arrow table, whose column `row` numbers them, in their order."""
    import ibis
    import pyarrow as pa
    from pyarrow import csv, parquet

    name = ibis.util.gen_name("tfctr")
    if connection.name == "pyspark":
        parquet.write_table(table, folder / f"{name}.parquet")
        connection.read_parquet(folder / f"{name}.parquet", table_name=name)
    else:
        connection.create_table(name, schema=ibis.Schema.from_pyarrow(table.schema))
        text = pa.BufferOutputStream()
        csv.write_csv(table, text)
        copy = f'COPY "{name}" FROM STDIN (FORMAT csv, HEADER)'
        with connection.con.transaction(), connection.con.cursor() as cursor, cursor.copy(copy) as rows:
            rows.write(text.getvalue().to_pybytes())
    return connection.table(name).order_by("row")


def contents(folder):
    """What a dataset holds: the SHA-256 of each file; of the manifest all but what it says of its sources."""
    files = {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    manifest = json.loads((folder / "manifest.json").read_text())
    return files | {"manifest.json": {key: value for key, value in manifest.items() if key != "sources"}}


def real_tables(real_data, name):
    """`{split: Arrow table}` of a real data set, with a column `row` that numbers each."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    folder = real_data(name)
    tables = {split: parquet.read_table(folder / f"{split}.parquet") for split in ("train", "valid")}
    return {
        split: rows if "row" in rows.column_names else rows.append_column("row", pa.array(np.arange(len(rows))))
        for split, rows in tables.items()
    }
