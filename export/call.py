"""Send raw rows, one JSON object a line, to a server, and print one probability a line. Needs no TensorFlow.

python export/call.py localhost:8500 frappe rows.jsonl
"""

import argparse

from tfctr.serving import PredictionClient

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="host:port")
    parser.add_argument("model", help="the model's name on the server")
    parser.add_argument("rows", help="a file with one JSON object a line")
    parser.add_argument("--separator", help="what joins the tokens of lists, as in the schema")
    arguments = parser.parse_args()
    with PredictionClient(arguments.target, model=arguments.model, separator=arguments.separator) as client:
        print("\n".join(map(str, client.predict_file(arguments.rows))))
