"""Send a version's golden requests to a server, and print the largest difference from the model's own answers.

python export/replay_golden.py localhost:8500 frappe serving/frappe/3

It is 0 on the machine that exported the model; another processor may round the last bits differently.
"""

import argparse
from pathlib import Path

import numpy as np

from tfctr.serving import PredictionClient
from tfctr.serving.golden import read_golden

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="host:port")
    parser.add_argument("model", help="the model's name on the server")
    parser.add_argument("version", type=Path, help="the folder of one version, the one with saved_model.pb")
    arguments = parser.parse_args()
    for batch in read_golden(arguments.version / "assets.extra" / "golden.json"):
        with PredictionClient(arguments.target, model=arguments.model, signature=batch["signature"]) as client:
            difference = client.predict(batch["inputs"]) - batch["outputs"]["probability"]
        print(f"{batch['signature']}, {len(difference)} rows: {np.abs(difference).max()}")
