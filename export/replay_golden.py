"""Send a version's golden requests to a server, and print the largest difference from the model's own answers.

python export/replay_golden.py localhost:8500 frappe serving/frappe/3

It is 0 on the machine that exported the model; another processor may round the last bits differently.
"""

import argparse
from pathlib import Path

import grpc
import numpy as np
from google.protobuf import json_format

from tfctr.serving.wire.protocol import PREDICTION_SERVICE, PredictRequest, PredictResponse, from_tensor
from tfctr.storage import read_json


def difference(served, golden):
    """The largest difference between two arrays; for text, how many elements differ."""
    if golden.dtype == object:
        return (served != golden).sum()
    same = (served == golden) | (np.isnan(served) & np.isnan(golden))
    return np.abs(np.where(same, 0, served - golden)).max(initial=0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="host:port")
    parser.add_argument("model", help="the model's name on the server")
    parser.add_argument("version", type=Path, help="the folder of one version, the one with saved_model.pb")
    arguments = parser.parse_args()
    with grpc.insecure_channel(arguments.target) as channel:
        predict = channel.unary_unary(
            f"/{PREDICTION_SERVICE}/Predict", PredictRequest.SerializeToString, PredictResponse.FromString
        )
        for messages in read_json(arguments.version / "assets.extra" / "golden.json"):
            request = json_format.ParseDict(messages["request"], PredictRequest())
            request.model_spec.name = arguments.model
            golden = json_format.ParseDict(messages["response"], PredictResponse())
            answer = predict(request, timeout=60)
            for name in sorted(golden.outputs):
                served, expected = from_tensor(answer.outputs[name]), from_tensor(golden.outputs[name])
                signature = request.model_spec.signature_name
                print(f"{signature} {name}, {len(expected)} rows: {difference(served, expected)}")
