"""FuxiCTR's own preprocessing of a Parquet table of benchmarks/prepare.py: rows, seconds and peak memory, as JSON.

Its counts are standardized numbers, not the buckets of its Criteo recipe, to its favour: those are made a value at a time.
"""

import json
import resource
import sys
import tempfile
import time

from fuxictr.preprocess import FeatureProcessor, build_dataset


def main(file, folder):
    counts = {"name": [f"I{i}" for i in range(1, 14)], "dtype": "float", "type": "numeric", "normalizer": "StandardScaler"}
    tokens = {"name": [f"C{i}" for i in range(1, 27)], "dtype": "str", "type": "categorical"}
    columns = [{**column, "active": True} for column in (counts, tokens)]
    start = time.perf_counter()
    processor = FeatureProcessor(columns, {"name": "label", "dtype": "float"}, dataset_id="made", data_root=folder)
    build_dataset(processor, train_data=file, data_format="parquet", min_categr_count=2)
    seconds = time.perf_counter() - start
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"seconds": round(seconds, 1), "peak_rss_mib": round(peaks[0]), "largest_child_rss_mib": round(peaks[1])}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[2]) as made:
        figures = main(sys.argv[1], made)
    print(json.dumps(figures))
