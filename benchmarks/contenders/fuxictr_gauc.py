"""Seconds of FuxiCTR's gAUC over labels, scores and groups that come as float64 on standard input."""

import sys
import time

import numpy as np
from fuxictr.metrics import evaluate_metrics

if __name__ == "__main__":  # its worker processes may import this file
    labels, scores, groups = np.frombuffer(sys.stdin.buffer.read()).reshape(3, -1)
    start = time.perf_counter()
    evaluate_metrics(labels, scores, ["gAUC"], groups.astype("int64"))
    print(time.perf_counter() - start)
