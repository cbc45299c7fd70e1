"""Seconds, bytes and peak memory of `tfctr.prepare` on a table that another engine holds, by rows and by codes.

    python benchmarks/engines.py --rows 200000
    python benchmarks/engines.py --rows 20000000 --transfers rows --driver-memory 1g --folder /scratch
    python benchmarks/engines.py --table train.parquet --label label

The table is made, of the shape of that in benchmarks/prepare.py, or given, all columns features of tokens. Spark runs on this
machine: its driver, which is its executor, too, is a process of its own. Bytes are those of Arrow that came, before any
compression. Each transfer is a process of its own.
"""

import argparse
import json
import logging
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from kit import results
from prepare import COUNTS, generate

LOGS = ("tfctr.data.sources", "tfctr.data.coded")


class Sizes(logging.Handler):
    """Adds up the bytes that the log says came from an engine: they stand behind its name."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.bytes = 0
        for name in LOGS:
            logging.getLogger(name).addHandler(self)
            logging.getLogger(name).setLevel(logging.INFO)

    def emit(self, record):
        self.bytes += sum(record.args[5:])


def connect(engine, memory, folder):
    """An Ibis connection to another engine than ours, and the process whose memory it takes."""
    import ibis

    if engine == "duckdb":
        return ibis.duckdb.connect(), os.getpid()
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = {"driver.memory": memory, "driver.host": "127.0.0.1", "driver.bindAddress": "127.0.0.1", "ui.enabled": "false"}
    settings |= {"local.dir": str(folder), "sql.warehouse.dir": str(folder)}
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(f"spark.{name}", value)
    session = builder.getOrCreate()
    return ibis.pyspark.connect(session), session.sparkContext._gateway.proc.pid


def peak_mib(process):
    """The most memory that a process has had."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024


def prepare(file, label, transfer, arguments, folder):
    """Prepare the table: the figures."""
    import tfctr

    warnings.simplefilter("ignore")
    connection, process = connect(arguments.engine, arguments.driver_memory, folder)
    table = connection.read_parquet(str(file))
    counts = COUNTS if arguments.table is None else []
    tokens = [name for name in table.columns if name not in (*counts, label)]
    features = [*map(tfctr.Numeric, counts), *(tfctr.Categorical(name, min_count=2) for name in tokens)]
    sizes, start = Sizes(), time.perf_counter()
    dataset = tfctr.prepare(tfctr.Schema(features, label=label), train=table, transfer=transfer, out=folder / "data")
    return {
        "rows": dataset.train.rows,
        "seconds": round(time.perf_counter() - start, 1),
        "bytes": sizes.bytes or None,  # DuckDB writes rows itself
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "engine_peak_rss_mib": peak_mib(process),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=["spark", "duckdb"], default="spark")
    parser.add_argument("--transfers", nargs="+", choices=["rows", "codes"], default=["rows", "codes"])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--table", type=Path, help="a Parquet file instead of a made table")
    parser.add_argument("--label", default="label")
    parser.add_argument("--driver-memory", default="1g", help="of Spark's heap")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the table and the dataset lie")
    parser.add_argument("--step", choices=["rows", "codes"], help=argparse.SUPPRESS)
    results.add_option(parser)
    arguments = parser.parse_args()
    file = arguments.table or arguments.folder / f"tfctr-benchmark-{arguments.rows}.parquet"
    if arguments.step:
        with tempfile.TemporaryDirectory(dir=arguments.folder, ignore_cleanup_errors=True) as folder:
            print(json.dumps(prepare(file, arguments.label, arguments.step, arguments, Path(folder))), flush=True)
        return
    if not file.exists():
        generate(file, arguments.rows)
    figures = {}
    for transfer in arguments.transfers:
        command = [sys.executable, __file__, *sys.argv[1:], "--step", transfer]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        figures[transfer] = json.loads(answer)
        print(transfer, json.dumps(figures[transfer]), flush=True)
    results.keep(figures, arguments)


if __name__ == "__main__":
    main()
