"""Send raw rows, one JSON object a line, to a server, and print one probability a line. Needs no TensorFlow.

python export/call.py localhost:8500 frappe rows.jsonl
"""

import argparse
import json
from pathlib import Path

from tfctr.serving import PredictionClient

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="host:port")
    parser.add_argument("model", help="the model's name on the server")
    parser.add_argument("rows", type=Path, help="a file with one JSON object a line")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.rows.read_text(encoding="utf-8").splitlines()]
    with PredictionClient(arguments.target, model=arguments.model) as client:
        print("\n".join(map(str, client.predict(rows))))
