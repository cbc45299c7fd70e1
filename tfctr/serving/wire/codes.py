"""Status codes: the same numbers in gRPC and in TensorFlow."""

from enum import IntEnum


class Code(IntEnum):
    """Those that are raised or looked at here.

    Reference: [gRPC status codes](https://grpc.io/docs/guides/status-codes/).
    """

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    DATA_LOSS = 15
