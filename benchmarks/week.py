"""A week of new tables: warm starts on each day's rows, beside training anew on all rows so far.

    python benchmarks/week.py SCHEMA TABLE... --order COLUMN --out DIR [--days 7] [--model TF4CTR] [--seeds 1 2 3 4 5]
        [--ways out_of_vocabulary random] [--json FILE]

The rows of the tables, in the order of a column, are cut into parts. Each is once the newest day: one run begins with the
run of the day before and is trained on that day alone, with the vocabularies extended by it; another is trained anew on all
days so far. Both are measured on the next part, which neither has seen, and so is the run of the first day. Settings are those
of `suggest`; of the first day for warm starts. A tenth of each training table is its valid split. Runs are kept in `--out`, and
a second call trains those that are missing. Seconds are those of the clock and those that processors were busy, in all threads:
the latter say more where the machine has other work.
"""

import argparse
import io
import json
import shutil
import statistics
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
from kit import results

FIGURES = ("auc", "log_loss", "seconds", "cpu_seconds")


def timed(work, file):
    """The seconds that a piece of work takes, kept in a file."""
    wall, busy = time.perf_counter(), time.process_time()
    work()
    file.write_text(json.dumps({"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - busy}))


def together(*files):
    """The seconds of several pieces of work."""
    kept = [json.loads(file.read_text()) for file in files]
    return {name: sum(values[name] for values in kept) for name in ("seconds", "cpu_seconds")}


def cut(tables, order, days, out):
    """The files of the parts."""
    files = [out / f"day-{day}.parquet" for day in range(1, days + 1)]
    if not all(file.exists() for file in files):
        table = pa.concat_tables([pyarrow.parquet.read_table(file) for file in tables])
        table = table.take(pyarrow.compute.sort_indices(table, sort_keys=[(order, "ascending")]))
        edges = [round(len(table) * day / days) for day in range(days + 1)]
        for file, start, stop in zip(files, edges, edges[1:], strict=False):
            pyarrow.parquet.write_table(table.slice(start, stop - start), file)
    return files


def prepared(folder, **arguments):
    """A dataset, made if it is not there, and the file of the seconds that it took."""
    import tfctr

    file = folder.parent / f"{folder.name}.json"
    if not file.exists():
        shutil.rmtree(folder, ignore_errors=True)
        timed(lambda: tfctr.prepare(**arguments, valid=0.1, out=folder), file)
    return folder, file


def trained(folder, data, seed, model, **arguments):
    """A run, made if it is not there, and the file of the seconds that it took."""
    import rich.console

    import tfctr
    from tfctr.training import load_run, suggest, train
    from tfctr.training.warm import next_config

    file = folder.parent / f"{folder.name}.json"
    if not file.exists():
        warm = arguments.get("warm_start")
        if warm:
            settings = arguments.pop("settings")
            config = tfctr.config.Config.from_dict(next_config(load_run(warm)).to_dict(), [f"training.seed={seed}", *settings])
        else:
            config = suggest(tfctr.Dataset.load(data, verify=False), model, [f"training.seed={seed}"])
        console = rich.console.Console(file=io.StringIO())
        timed(lambda: train(config, data, folder, console, resume=True, **arguments), file)
    return load_run(folder), file


def measured(run, table):
    from tfctr.evaluation import evaluate

    file = run.folder / "next_day.json"
    if not file.exists():
        found = evaluate(run, table=table)
        file.write_text(json.dumps({name: found[name] for name in ("auc", "log_loss")}))
    return json.loads(file.read_text())


def week(days, arguments, seed):
    """`{way: [{day, auc, log_loss, seconds, ...}]}`."""
    import tfctr

    schema = tfctr.Schema.load(arguments.schema)
    out = arguments.out
    data, _ = prepared(out / "data-1", schema=schema, train=days[0])
    first, _ = trained(out / f"first-{seed}", data, seed, arguments.model)
    found = {"anew": [], **{way: [] for way in arguments.ways}, "first": []}
    for way in arguments.ways:
        before, run = data, first
        new_rows, *settings = way.split(",")
        for day in range(2, len(days)):
            extended, preparing = prepared(out / f"extended-{day}", extend=before, train=days[day - 1])
            start = {"warm_start": run.folder, "new_rows": new_rows, "settings": settings}
            folder = out / f"{way.replace(',', '-').replace('training.', '')}-{seed}-{day}"
            run, training = trained(folder, extended, seed, arguments.model, **start)
            told = run.environment["warm_start"]["features"].values()
            tokens = {name: sum(counts[name] for counts in told) for name in ("carried", "new", "forgotten")}
            epochs = {"epochs": run.metrics["epochs"]}
            found[way].append({"day": day, **measured(run, days[day]), **together(preparing, training), **epochs, **tokens})
            before = extended
    for day in range(2, len(days)):
        whole, preparing = prepared(out / f"whole-{day}", schema=schema, train=list(map(str, days[:day])))
        run, training = trained(out / f"anew-{seed}-{day}", whole, seed, arguments.model)
        epochs = {"epochs": run.metrics["epochs"]}
        found["anew"].append({"day": day, **measured(run, days[day]), **together(preparing, training), **epochs})
        file = out / f"first-{seed}-on-{day}.json"
        if not file.exists():
            from tfctr.evaluation import evaluate

            scored = evaluate(first, table=days[day])
            file.write_text(json.dumps({name: scored[name] for name in ("auc", "log_loss")}))
        found["first"].append({"day": day, **json.loads(file.read_text()), "seconds": 0.0, "cpu_seconds": 0.0})
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schema", help="such as examples/criteo.yaml")
    parser.add_argument("tables", nargs="+", help="Parquet files")
    parser.add_argument("--order", required=True, help="the column by which rows follow each other")
    parser.add_argument("--out", type=Path, required=True, help="where parts, datasets and runs are kept")
    parser.add_argument("--days", type=int, default=7, help="parts, at least three")
    parser.add_argument("--model", default="TF4CTR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    help = "how a warm start goes: where new rows start, and settings of the run: random,training.epochs=1"
    parser.add_argument("--ways", nargs="+", default=["out_of_vocabulary"], help=help)
    results.add_option(parser)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    days = cut(arguments.tables, arguments.order, arguments.days, arguments.out)
    weeks = [week(days, arguments, seed) for seed in arguments.seeds]
    figures = {}
    print(f"{'way':<44}{'day':>4}{'AUC':>9}{'sd':>8}{'log loss':>10}{'sd':>8}{'seconds':>9}{'busy':>9}{'epochs':>8}{'new':>9}")
    for way in weeks[0]:
        figures[way] = [[found[way][place] for found in weeks] for place in range(arguments.days - 2)]
        for seeds in figures[way]:
            mean = {name: statistics.mean(values[name] for values in seeds) for name in FIGURES}
            spread = {name: statistics.stdev(values[name] for values in seeds) if len(seeds) > 1 else 0 for name in FIGURES}
            epochs = statistics.mean(values.get("epochs", 0) for values in seeds)
            line = f"{way:<44}{seeds[0]['day']:>4}{mean['auc']:>9.4f}{spread['auc']:>8.4f}{mean['log_loss']:>10.4f}"
            line += f"{spread['log_loss']:>8.4f}{mean['seconds']:>9.1f}{mean['cpu_seconds']:>9.1f}{epochs:>8.1f}"
            line += f"{seeds[0].get('new', 0):>9,}"
            print(line, flush=True)
    arguments.tables = [Path(file).name for file in arguments.tables]
    results.keep(figures, arguments)


if __name__ == "__main__":
    main()
