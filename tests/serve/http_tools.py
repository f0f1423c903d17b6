"""The HTTP side on a port and in a thread of its own, and a client that hides nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection

from atriva_ray.serve.http.app import make_app
from atriva_ray.serve.http.gate import Gate
from atriva_ray.serve.http.listener import HttpListener
from atriva_ray.serve.limits import Limits
from atriva_ray.serve.protocol.rest_request import HEADER_LENGTH
from tests.serve.fake_server import PRIVATE, FakeServer

HOST = "127.0.0.1"
INFER = "/v2/models/double/infer"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


class Answer:
    """What came back, whatever it is."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    @property
    def error(self):
        """What the client is told; the protocol says how, and nobody but us may know more."""
        assert self.status >= 400
        document = self.json
        assert list(document) == ["error"]
        assert "Traceback" not in document["error"]
        assert PRIVATE not in document["error"]
        return document["error"]

    @property
    def parts(self):
        """The JSON, and the bytes behind it."""
        size = int(self.headers[HEADER_LENGTH.lower()])
        assert self.headers["content-type"] == "application/octet-stream"
        return json.loads(self.body[:size]), self.body[size:]


class Served:
    """A listener that runs; `loop` is its own."""

    def __init__(self, port, fake, loop):
        self.port = port
        self.url = f"{HOST}:{port}"
        self.fake = fake
        self._loop = loop

    def connect(self):
        return HTTPConnection(HOST, self.port, timeout=20)

    def raw(self, *parts):
        """Send bytes as they are, on a connection of their own."""
        connection = socket.create_connection((HOST, self.port), timeout=20)
        for part in parts:
            connection.sendall(part)
        return connection

    def ask(self, method, path, body=None, connection=None, **headers):
        """Ask once; underscores in names of headers stand for hyphens."""
        own = connection or self.connect()
        try:
            names = {name.replace("_", "-"): str(value) for name, value in headers.items()}
            own.request(method, path, body, names)
            response = own.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, got, response.read())
        finally:
            if connection is None:
                own.close()

    def get(self, path, **headers):
        return self.ask("GET", path, **headers)

    def post(self, path, body=b"", **headers):
        content = body if isinstance(body, bytes) else json.dumps(body)
        return self.ask("POST", path, content, **headers)

    def infer(self, document, tail=b"", path=INFER, **headers):
        """Send JSON, and with its length if bytes follow it."""
        head = document if isinstance(document, bytes) else json.dumps(document).encode()
        if tail:
            headers[HEADER_LENGTH] = len(head)
        return self.ask("POST", path, head + tail, **headers)

    def renewed(self):
        """Return the same, as if nobody had ever asked it."""
        vars(self.fake).update(vars(FakeServer()))
        return self

    def release(self):
        """Let ``slow`` answer."""
        self._loop.call_soon_threadsafe(self.fake.release.set)


@contextmanager
def serving(limits=None, gate=None, **fields):
    """Serve a `FakeServer` of these fields; see that nothing runs afterwards."""
    fake = FakeServer(**fields)
    app = make_app(fake, limits or Limits(), gate or Gate(None, HOST))
    started = Future()

    async def run():
        stop = asyncio.Event()
        try:
            listener = await HttpListener(app, HOST, 0).start()
        except BaseException as error:
            started.set_exception(error)
            raise
        loop = asyncio.get_running_loop()
        started.set_result((Served(listener.port, fake, loop), loop, stop))
        await stop.wait()
        await listener.stop()
        assert fake.running == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with ThreadPoolExecutor(1, thread_name_prefix="atriva-http-test") as pool:
        ended = pool.submit(asyncio.run, run())
        served, loop, stop = started.result(20)
        try:
            yield served
        finally:
            loop.call_soon_threadsafe(fake.release.set)
            loop.call_soon_threadsafe(stop.set)
            ended.result(30)


def until(condition):
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def tensor(data=(1, 2), datatype="INT32", shape=(2,), name="x", **fields):
    """Return one input as it stands in the JSON."""
    return {"name": name, "shape": shape, "datatype": datatype, "data": data} | fields


def request(*tensors, **fields):
    """Return the JSON of a request."""
    return {"inputs": tensors or (tensor(),)} | fields


def post_head(*lines, path=INFER, method="POST"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {HOST}", *lines, "", ""]).encode()


def post(body, *lines, path=INFER):
    return post_head(f"Content-Length: {len(body)}", *lines, path=path) + body


def read_answer(file):
    """Read one answer off a connection that may carry more of them."""
    status = int(file.readline().split()[1])
    headers = {}
    while line := file.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return Answer(status, headers, file.read(int(headers["content-length"])))


def answer_of(connection):
    with connection.makefile("rb") as file:
        return read_answer(file)


def chunked(*parts):
    """Return a body in parts of these, without the end of the body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
