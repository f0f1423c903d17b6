"""Opening a lane: who knows the token gets one, and nobody else keeps others from it."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
from contextlib import suppress

import pytest

from atriva_ray.lanes import connect as opening
from atriva_ray.lanes import listen
from atriva_ray.lanes.connect import connect_tcp, connect_unix
from atriva_ray.lanes.errors import FrameError
from atriva_ray.lanes.handshake import CHALLENGE_BYTES, HELLO_BYTES, make_hello, make_token
from tests.cluster.tools import wait_until

from .tools import Client, Question, assert_echo, numbers


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(listen, "_GREETING_TIMEOUT_S", 0.3)


def raw(replica, kind):
    """A connection on which nothing was said yet."""
    if kind == "unix":
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.connect(b"\0" + replica.listener.name.encode())
    else:
        connected = socket.create_connection(replica.listen_tcp())
    connected.settimeout(10)
    return connected


def assert_closed(connected):
    """The other end closes it, whatever it says before."""
    with connected:
        try:
            while connected.recv(65536):
                pass
        except ConnectionError:
            pass


def assert_serves(replica, make_client, kind):
    client = make_client(replica, kind)
    assert_echo(client.ask(numbers(1, 3)), numbers(1, 3))
    client.close()


@pytest.mark.parametrize("token", [make_token(), b"", b"\0" * 32])
def test_a_program_with_another_token_is_refused(make_replica, make_client, kind, token):
    replica = make_replica()
    own = replica.token
    replica.token = token
    with pytest.raises((FrameError, ConnectionError)):
        replica.connect(kind)
    replica.token = own
    assert replica.server.lane_count == 0
    assert_serves(replica, make_client, kind)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("said", [0, 1, HELLO_BYTES - 1])
def test_one_that_says_nothing_or_too_little_is_closed_in_time(
    make_replica, make_client, kind, impatient, said
):
    replica = make_replica()
    connected = raw(replica, kind)
    challenge = connected.recv(CHALLENGE_BYTES)
    connected.sendall(make_hello(replica.token, challenge)[:said])
    assert_closed(connected)
    assert_serves(replica, make_client, kind)


@pytest.mark.parametrize(
    "greeting",
    [
        b"GET / HTTP/1.1\r\nHost: replica\r\n\r\n".ljust(HELLO_BYTES, b"x"),
        b"\x16\x03\x01\x02\x00\x01".ljust(HELLO_BYTES, b"\0"),
        b"\0" * HELLO_BYTES,
        b"\xff" * 100_000,
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
    ids=["http", "tls", "zeros", "much", "ssh"],
)
def test_garbage_and_other_protocols_are_refused(
    make_replica, make_client, kind, impatient, greeting
):
    replica = make_replica()
    connected = raw(replica, kind)
    with suppress(ConnectionError):
        connected.sendall(greeting)
    assert_closed(connected)
    assert replica.server.lane_count == 0
    assert_serves(replica, make_client, kind)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_one_that_goes_at_once_is_no_trouble(make_replica, make_client, kind):
    replica = make_replica()
    for _ in range(30):
        connected = raw(replica, kind)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connected.close()
    wait_until(lambda: not replica.listener._strangers.locked(), every_s=0.01)
    assert_serves(replica, make_client, kind)


def test_a_greeting_cannot_be_used_again(make_replica):
    replica = make_replica()
    first = raw(replica, "unix")
    hello = make_hello(replica.token, first.recv(CHALLENGE_BYTES))
    second = raw(replica, "unix")
    second.recv(CHALLENGE_BYTES)
    second.sendall(hello)
    assert_closed(second)
    first.close()
    assert replica.server.lane_count == 0


def test_strangers_on_the_network_do_not_keep_programs_of_this_host_waiting(
    make_replica, make_client
):
    replica = make_replica()
    replica.listen_tcp()
    strangers = [raw(replica, "tcp") for _ in range(30)]
    assert_serves(replica, make_client, "unix")
    for stranger in strangers:
        stranger.close()


def test_a_stranger_that_sends_a_byte_now_and_then_does_not_stay(
    make_replica, make_client, impatient
):
    replica = make_replica()
    strangers = [raw(replica, "tcp") for _ in range(6)]
    for stranger in strangers:
        stranger.setblocking(False)
    is_over = threading.Event()

    def drip():
        while not is_over.wait(0.1):
            for stranger in strangers:
                try:
                    stranger.send(b"a")
                except OSError:
                    continue

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        wait_until(
            lambda: all(stranger_is_closed(each) for each in strangers), timeout_s=3, every_s=0.05
        )
        assert_serves(replica, make_client, "tcp")
    finally:
        is_over.set()
        dripping.join()
        for stranger in strangers:
            stranger.close()


def stranger_is_closed(stranger):
    try:
        while stranger.recv(1024):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def test_many_programs_connect_at_once(make_replica, loop):
    replica = make_replica()
    clients = []

    def connect(number):
        client = Client(loop, replica.connect("unix"))
        clients.append(client)
        assert_echo(client.ask(numbers(1, 3, number)), numbers(1, 3, number))

    connecting = [threading.Thread(target=connect, args=(number,)) for number in range(40)]
    for thread in connecting:
        thread.start()
    for thread in connecting:
        thread.join()
    assert len(clients) == replica.server.lane_count == 40


def test_listening_on_tcp_again_gives_the_same_address(make_replica):
    replica = make_replica()
    assert replica.listen_tcp() == replica.listen_tcp()


def test_nobody_listens_after_it_was_closed(make_replica, make_client):
    replica = make_replica()
    client = make_client(replica)
    address = replica.listen_tcp()
    replica.on_loop(replica.listener.close())
    for connect in (
        lambda: connect_unix(replica.listener.name, replica.token),
        lambda: connect_tcp(*address, replica.token),
    ):
        with pytest.raises(OSError, match="refused"):
            connect()
    assert_echo(client.ask(numbers(1, 3)), numbers(1, 3))  # what is open stays


def test_a_replica_that_does_not_know_the_token_is_refused(make_replica):
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=pose, args=(listening,))
    thread.start()
    with pytest.raises(FrameError, match="a replica that does not know the token"):
        connect_tcp(*listening.getsockname(), make_token())
    thread.join()
    listening.close()


def pose(listening):
    connected, _ = listening.accept()
    with connected:
        connected.sendall(b"atriva-lane/1\0\0\0" + os.urandom(32))
        hello = connected.recv(HELLO_BYTES, socket.MSG_WAITALL)
        connected.sendall(hello[-32:])


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n".ljust(CHALLENGE_BYTES)])
def test_something_else_that_listens_is_refused(said):
    listening = socket.create_server(("127.0.0.1", 0))

    def answer():
        connected, _ = listening.accept()
        connected.sendall(said)
        connected.close()

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises((FrameError, ConnectionError)):
        connect_tcp(*listening.getsockname(), make_token())
    thread.join()
    listening.close()


def test_one_that_listens_and_says_nothing_is_given_up(monkeypatch):
    listening = socket.create_server(("127.0.0.1", 0))
    with pytest.raises(TimeoutError):
        connect_tcp(*listening.getsockname(), make_token(), timeout_s=0.2)
    listening.close()


# -- TLS -----------------------------------------------------------------------------------------


def test_a_program_without_a_certificate_is_refused(
    make_replica, make_client, authority, monkeypatch
):
    authority.configure(monkeypatch)
    replica = make_replica()
    address = replica.listen_tcp()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connected = socket.create_connection(address)
    connected.settimeout(10)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(connected).recv(1)
    connected.close()
    assert_serves(replica, make_client, "tls")


def test_certificates_of_another_authority_are_refused_on_both_ends(
    make_replica, make_client, authority, make_authority, monkeypatch
):
    authority.configure(monkeypatch)
    replica = make_replica()
    address = replica.listen_tcp()
    other = make_authority()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(other.folder / "member.crt", other.folder / "member.key")
    connected = socket.create_connection(address)
    connected.settimeout(10)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(connected).recv(1)
    connected.close()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(other.certificate)
    with monkeypatch.context() as patched:
        patched.setattr(opening, "client_context", lambda: context)
        with pytest.raises(ssl.SSLCertVerificationError):
            connect_tcp(*address, replica.token)
    assert_serves(replica, make_client, "tls")


def test_a_program_without_tls_is_refused_where_there_is_some(
    make_replica, make_client, authority, monkeypatch, impatient
):
    authority.configure(monkeypatch)
    replica = make_replica()
    address = replica.listen_tcp()
    with monkeypatch.context() as patched:
        patched.setattr(opening, "client_context", lambda: None)
        with pytest.raises((FrameError, OSError)):
            connect_tcp(*address, replica.token)
    assert_serves(replica, make_client, "tls")


def test_settings_of_tls_that_are_wrong_show_when_it_is_to_listen(make_replica, monkeypatch):
    replica = make_replica()
    monkeypatch.setenv("RAY_USE_TLS", "1")
    with pytest.raises((KeyError, OSError)):
        replica.listen_tcp()


def test_what_is_sent_over_tls_cannot_be_read(make_replica, loop, authority, monkeypatch):
    authority.configure(monkeypatch)
    replica = make_replica()
    address = replica.listen_tcp()
    seen = bytearray()
    listening = socket.create_server(("127.0.0.1", 0))
    relays = []

    def relay(source, target):
        with suppress(OSError):
            while data := source.recv(65536):
                seen.extend(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def accept():
        one, _ = listening.accept()
        other = socket.create_connection(address)
        for ends in ((one, other), (other, one)):
            thread = threading.Thread(target=relay, args=ends)
            thread.start()
            relays.append(thread)
        for thread in relays[:2]:
            thread.join()
        one.close()
        other.close()

    accepting = threading.Thread(target=accept)
    accepting.start()
    client = Client(loop, connect_tcp(*listening.getsockname(), replica.token))
    secret = b"a secret of the program "
    array = numbers(1, 6_000)
    array.view("u1")[0, : len(secret)] = list(secret)
    question = client.send(Question(array))[0]
    question.outputs()
    client.close()
    accepting.join(10)
    listening.close()
    assert len(seen) > 2 * array.nbytes
    assert secret not in seen
