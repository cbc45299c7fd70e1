"""Clients against servers that are slow, silent or broken: calls end in time, in the right error, and leave nothing behind."""

import contextlib
import os
import socket
import struct
import threading
import time

import grpc
import pytest
from kit.fake_serving import FakeServing, answer_price, rows

from tfctr.errors import StorageError, TfctrError
from tfctr.serving.client.blocking import PredictionClient

SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # the frame by which a server of HTTP/2 begins
AT_ONCE = struct.pack("ii", 1, 0)  # lingering for 0 seconds: closing resets the connection
FEW, MANY = 50, 1000  # failed calls
POOL = 20  # threads of gRPC that come and go


class Resetting:
    """A server that resets each connection: at once, or after it was asked. `connections` counts them."""

    def __init__(self, greets):
        self.greets, self.connections = greets, 0

    @contextlib.contextmanager
    def serving(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            accepting = threading.Thread(target=self._accept, args=(listener,))
            accepting.start()
            try:
                yield f"127.0.0.1:{listener.getsockname()[1]}"
            finally:
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
                accepting.join()

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self.connections += 1
                with connection, contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                    if self.greets:
                        connection.sendall(SETTINGS)
                        received = b" "
                        while received and b"tensorflow" not in received:  # the name of what is called
                            received = connection.recv(2**16)


def seconds_until_the_deadline(target, timeout):
    with PredictionClient(target, model="m", timeout=timeout) as client:
        start = time.monotonic()
        with pytest.raises(StorageError, match=rf"did not answer within {timeout} s\.\n  fix: raise `timeout`"):
            client.predict(rows(1))
        return time.monotonic() - start


def test_the_deadline_holds_against_a_slow_server():
    release = threading.Event()

    def answer(request, context):
        release.wait(60)
        return answer_price(request, context)

    with FakeServing(answer).serving() as target:
        assert 0.5 <= seconds_until_the_deadline(target, timeout=0.5) < 10
        release.set()


def test_the_deadline_holds_against_a_server_that_accepts_and_is_silent():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        assert 0.5 <= seconds_until_the_deadline(target, timeout=0.5) < 10


@pytest.mark.parametrize(("greets", "attempts"), [(False, 1), (True, 3)], ids=["at once", "after it was asked"])
def test_a_server_that_resets_connections(greets, attempts):
    """A connection that has never worked is not made anew at once; one that has is, for each attempt."""
    server = Resetting(greets)
    with (
        server.serving() as target,
        PredictionClient(target, model="m", timeout=60) as client,
        pytest.raises(StorageError, match=r"no server answers at .*reset by peer(?s:.*)tfctr serve"),
    ):
        client.predict(rows(1))
    assert server.connections >= attempts


def threads():
    """Those of Python; and all, where the system says."""
    return threading.active_count(), len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0


@pytest.mark.slow
def test_failed_calls_leave_no_threads():
    fake, server = FakeServing(lambda request, context: context.abort(grpc.StatusCode.INTERNAL, "")), Resetting(True)

    def fail(calls):
        for number in range(calls):
            target, timeout = (refusing, 60) if number % 2 else (resetting, 0.002)
            with PredictionClient(target, model="m", timeout=timeout) as client, contextlib.suppress(TfctrError):
                client.predict(rows(1))
                raise AssertionError("answered")
        return threads()

    with fake.serving() as refusing, server.serving() as resetting:
        few, many = fail(FEW), fail(MANY)
    assert all(after <= before + POOL for before, after in zip(few, many, strict=True)), (few, many)
