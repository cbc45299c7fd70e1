"""REST of the local stand-in as a server: TLS, ports, connections, and how it stops."""

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time

import pytest
from kit.rest import ask
from kit.saved_models import put

from tfctr.errors import ConfigError, StorageError
from tfctr.serving.runtime import rest
from tfctr.serving.runtime.stand_in import LocalServer, serve

ROW = {"instances": [{"user": "60", "price": 0.0}]}
GOOD = (200, {"predictions": [0.5]})


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    base = tmp_path_factory.mktemp("serving") / "my model"
    put(base, models / "light")
    with LocalServer(base, port=0, rest_port=0) as server:
        yield server


def connected(server):
    port = int(server.rest_url.split(":")[2].split("/")[0])
    return contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=60))


def said(server, text):
    """All that comes back on a connection over which that is sent, until it ends or breaks."""
    answer = b""
    with connected(server) as connection, contextlib.suppress(OSError):
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(2**16):
            answer += part
    return answer


def test_it_is_off_unless_asked_for_and_listens_where_grpc_does(server, base):
    assert server.rest_url.startswith("http://127.0.0.1:")
    assert server.rest_url.endswith("/v1/models/my%20model")
    assert ask(f"{server.rest_url}:predict", ROW) == GOOD
    with LocalServer(base, port=0) as other:
        assert other.rest_url is None


def test_ports_that_cannot_be_used(server, base):
    taken = int(server.rest_url.split(":")[2].split("/")[0])
    with pytest.raises(StorageError, match=f"cannot listen on 127.0.0.1:{taken}.*\n  fix: give another --rest-port"):
        LocalServer(base, port=0, rest_port=taken).__enter__()
    for start in (LocalServer, serve):
        with pytest.raises(ConfigError, match="`rest_port` is 65536"):
            start(base, rest_port=65536)


def test_tls_with_certificates_of_both(base, certificate):
    key, chain = certificate
    options = {"port": 0, "rest_port": 0, "certificate": chain, "key": key, "root_certificates": chain}
    context = ssl.create_default_context(cafile=chain)
    with LocalServer(base, **options) as server:
        assert server.rest_url.startswith("https://")
        place = server.rest_url.removeprefix("https://").partition("/")[0]

        def answer():
            with contextlib.closing(http.client.HTTPSConnection(place, context=context, timeout=60)) as connection:
                connection.request("POST", "/v1/models/frappe:predict", json.dumps(ROW))
                return json.loads(connection.getresponse().read())

        with pytest.raises(OSError, match=r"(?i)certificate required|reset|broken|closed|EOF"):
            answer()
        context.load_cert_chain(chain, key)
        assert answer() == answer() == GOOD[1]
        assert b"HTTP" not in said(server, b"GET /v1/models/frappe HTTP/1.1\r\n\r\n")


BROKEN = {
    "no HTTP": (b"GET /v1/models HTTP/x\r\n\r\n", b" 400 "),
    "a long line": (b"GET /" + b"x" * (2**16 - 4), b" 414 "),
    "many headers": (b"GET /v1/models HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n", b" 431 "),
    "an unknown method": (b"PUT /v1/models/x HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b" 501 "),
    "two lengths": (b"POST /v1/models/x:predict HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", b" 400 "),
    "a short body": (b"POST /v1/models/x:predict HTTP/1.1\r\nContent-Length: 20\r\n\r\n{}", b" 400 "),
    "a length and chunks": (
        b"POST /v1/models/x:predict HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        b"GET / HTTP/1.1\r\n\r\n",
        b" 411 ",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_requests_end_the_connection(server, name):
    text, code = BROKEN[name]
    answer = said(server, text)
    assert answer.count(b"HTTP/1.1") == 1
    assert code in answer.partition(b"\r\n")[0]
    assert [*json.loads(answer.partition(b"\r\n\r\n")[2])] == ["error"]
    assert ask(f"{server.rest_url}:predict", ROW) == GOOD


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [(MemoryError, 429, "needs more memory than there is"), (RuntimeError, 500, "an error of the server, which its log has")],
)
def test_errors_of_the_server_are_json_too(server, monkeypatch, caplog, error, status, words):
    with monkeypatch.context() as broken:
        broken.setattr(rest.Rest, "_predict", lambda *_: (_ for _ in ()).throw(error))
        code, answer = ask(f"{server.rest_url}:predict", ROW)
    assert (code, words in answer["error"]) == (status, True)
    assert ("Traceback" in caplog.text) == (status == 500)
    assert ask(f"{server.rest_url}:predict", ROW) == GOOD


def test_without_threads_no_room_is_lost(server, monkeypatch, caplog):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        for _ in range(rest._MOST_CONNECTIONS):
            assert said(server, b"GET /v1/models HTTP/1.1\r\n\r\n") == b""
    assert "can't start new thread" in caplog.text
    assert ask(f"{server.rest_url}:predict", ROW) == GOOD


def test_one_connection_has_many_requests(server):
    place, _, path = server.rest_url.removeprefix("http://").partition("/")
    with contextlib.closing(http.client.HTTPConnection(place, timeout=60)) as connection:
        connection.connect()
        held = connection.sock
        for content, status in ((ROW, 200), ({}, 400), (ROW, 200)):
            connection.request("POST", f"/{path}:predict", json.dumps(content))
            answer = connection.getresponse()
            assert (answer.status, "error" in json.loads(answer.read())) == (status, status == 400)
            assert connection.sock is held


def test_connections_are_limited_and_those_that_end_make_room(server):
    with contextlib.ExitStack() as stack:
        for _ in range(rest._MOST_CONNECTIONS):
            stack.enter_context(connected(server)).sendall(b"GET /v1/")
        assert said(server, b"GET /v1/models HTTP/1.1\r\n\r\n") == b""
    for _ in range(100):  # until the server has seen that they are gone
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert ask(f"{server.rest_url}:predict", ROW) == GOOD
            break
    else:
        pytest.fail("no room")


def test_silent_connections_are_ended(base, monkeypatch):
    monkeypatch.setattr(rest, "_SECONDS", 0.1)
    monkeypatch.setattr(rest._Handler, "timeout", 0.1)
    with LocalServer(base, port=0, rest_port=0) as server, connected(server) as connection:
        connection.sendall(b"POST /v1/models/frappe:predict HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
        assert connection.recv(1) == b""


def test_it_stops_while_callers_are_connected_and_asking(base):
    outcomes = []

    def keep_asking(server):
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                outcomes.append(ask(f"{server.rest_url}:predict", ROW))

    with contextlib.ExitStack() as stack:
        with LocalServer(base, port=0, rest_port=0) as server:
            idle = stack.enter_context(connected(server))
            callers = [threading.Thread(target=keep_asking, args=(server,)) for _ in range(4)]
            for caller in callers:
                caller.start()
            while len(outcomes) < 20:
                time.sleep(0.01)
        for caller in callers:
            caller.join()
        assert idle.recv(1) == b""
    assert all(outcome == GOOD for outcome in outcomes)
