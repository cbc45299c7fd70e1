"""Rows a second and peak memory of `tfctr.prepare` on a table of Criteo's shape: 13 counts, 26 tokens, 5 million distinct ones.

    python benchmarks/prepare.py --rows 1000000
    python benchmarks/prepare.py --rows 10000000 --memory-limit 1GB --folder /scratch

The table is made out of core by DuckDB and kept, so that a second run only prepares it. Each step runs in a process of its own,
and the peak is that of the one that prepares. With `--fuxictr PYTHON` (see benchmarks/peers.py) FuxiCTR prepares the same file
afterwards.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kit import results
from kit.made import CRITEO_THOUSANDS

COUNTS = [f"I{number}" for number in range(1, 14)]
TOKENS = {f"C{number}": int(thousands * 1000) for number, thousands in enumerate(CRITEO_THOUSANDS, start=1)}


def generate(file, rows):
    """Write the table: counts are log-uniform with 20 % nulls, tokens are skewed towards the first ones."""
    import duckdb

    counts = [
        f"CASE WHEN random() < 0.2 THEN NULL ELSE floor(exp(10 * random())) - 1 END::INTEGER AS {name}" for name in COUNTS
    ]
    tokens = [f"substr(hex(hash(floor({distinct} * random() ** 2))), 1, 8) AS {name}" for name, distinct in TOKENS.items()]
    columns = ", ".join(["(random() < 0.25)::INTEGER AS label", *counts, *tokens])
    connection = duckdb.connect(config={"memory_limit": "1GB"})
    connection.execute(f"COPY (SELECT {columns} FROM range({rows})) TO '{file}' (FORMAT parquet)")


def prepare(file, out, memory_limit, fractions):
    """Prepare the table: the figures."""
    import tfctr

    schema = tfctr.Schema(
        features=[*(tfctr.Numeric(name) for name in COUNTS), *(tfctr.Categorical(name, min_count=2) for name in TOKENS)],
        label="label",
    )
    start = time.perf_counter()
    dataset = tfctr.prepare(schema, train=file, out=out, memory_limit=memory_limit, **fractions)
    seconds = time.perf_counter() - start
    rows = sum(split.rows for split in dataset.splits.values())
    return {
        "rows": rows,
        "columns": schema.width,
        "ids": dataset.schema.table_rows,
        "seconds": round(seconds, 1),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--memory-limit", default="1GB")
    parser.add_argument("--split", action="store_true", help="also draw 10 %% for valid and 10 %% for test")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the table and the dataset lie")
    parser.add_argument("--fuxictr", type=Path, help="a Python with fuxictr")
    parser.add_argument("--step", choices=["generate", "prepare"], help=argparse.SUPPRESS)
    results.add_option(parser)
    arguments = parser.parse_args()
    file = arguments.folder / f"tfctr-benchmark-{arguments.rows}.parquet"
    if arguments.step == "generate":
        generate(file, arguments.rows)
    elif arguments.step == "prepare":
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            fractions = {"valid": 0.1, "test": 0.1} if arguments.split else {}
            print(json.dumps(prepare(file, Path(folder) / "data", arguments.memory_limit, fractions)))
    else:
        ours = [sys.executable, __file__, *sys.argv[1:], "--step"]
        if not file.exists():
            subprocess.run([*ours, "generate"], check=True)
        commands = {"tfctr": [*ours, "prepare"]}
        if arguments.fuxictr:
            script = Path(__file__).parent / "contenders" / "fuxictr_prepare.py"
            commands["FuxiCTR"] = [arguments.fuxictr.absolute(), script, file, arguments.folder]
        figures = {}
        for name, command in commands.items():
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
            figures[name] = json.loads(answer)
            figures[name]["rows_per_second"] = round(arguments.rows / figures[name]["seconds"])
            print(name, json.dumps(figures[name]), flush=True)
        results.keep(figures, arguments)


if __name__ == "__main__":
    main()
