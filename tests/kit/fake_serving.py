"""A prediction service whose answers a test writes."""

import contextlib
from concurrent import futures

import grpc
import numpy as np

from tfctr.serving.wire import protocol

TEXT, DOUBLE, FLOAT = 7, 2, 1
_MOST = 2.0**14  # a price


class FakeServing:
    """A server with one model, whose Predict is `answer(request, context)`. It keeps the requests that it got.

    `signatures`: name -> (input -> type, output names); inputs named in `context` have the shape (1,), all others (-1,).
    """

    def __init__(self, answer, signatures=None, context=()):
        self.answer, self.context = answer, context
        self.signatures = signatures or {"serving_default": ({"user": TEXT, "price": DOUBLE}, ["probability"])}
        self.version = None  # what it says the signatures are of
        self.requests, self.headers, self.metadata_requests = [], [], []

    def predict(self, request, context):
        self.requests.append(request)
        self.headers.append(dict(context.invocation_metadata()))
        return self.answer(request, context)

    def metadata(self, request, context):
        self.metadata_requests.append(request)
        definitions = protocol.SignatureDefMap()
        for name, (inputs, outputs) in self.signatures.items():
            for column, dtype in inputs.items():
                definitions.signature_def[name].inputs[column].dtype = dtype
                size = 1 if column in self.context else -1
                definitions.signature_def[name].inputs[column].tensor_shape.dim.add(size=size)
            for output in outputs:
                definitions.signature_def[name].outputs[output].dtype = FLOAT
        response = protocol.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(definitions)
        if self.version is not None:
            response.model_spec.version.value = self.version
        return response

    def status(self, request, context):
        response = protocol.GetModelStatusResponse()
        response.model_version_status.add(version=3, state="AVAILABLE")
        return response

    @contextlib.contextmanager
    def serving(self, credentials=None):
        def handler(respond, request):
            return grpc.unary_unary_rpc_method_handler(respond, request.FromString, lambda answer: answer.SerializeToString())

        server = grpc.server(futures.ThreadPoolExecutor(4))
        handlers = {
            "Predict": handler(self.predict, protocol.PredictRequest),
            "GetModelMetadata": handler(self.metadata, protocol.GetModelMetadataRequest),
        }
        status = {"GetModelStatus": handler(self.status, protocol.GetModelStatusRequest)}
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(protocol.PREDICTION_SERVICE, handlers),
                grpc.method_handlers_generic_handler(protocol.MODEL_SERVICE, status),
            ]
        )
        address = "127.0.0.1:0"
        port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(grace=None)


def answer_price(request, context):
    """A probability that tells the price, and so the row."""
    found = protocol.from_tensor(request.inputs["price"])
    probabilities = np.where(np.isnan(found), 1, found / _MOST).astype("f4")
    return protocol.PredictResponse(outputs={"probability": protocol.to_tensor(probabilities)})


def prices(probabilities):
    """The prices that such probabilities tell."""
    return np.where(probabilities == 1, np.nan, probabilities * _MOST).tolist()


def rows(count):
    return {"user": ["60"] * count, "price": np.arange(float(count))}
