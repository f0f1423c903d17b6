"""Lanes over every kind of connection; nothing of them stays when a test is over."""

from __future__ import annotations

import gc
import shutil
import subprocess

import pytest

from atriva_ray.lanes.loop import LaneLoop
from tests.cluster.tools import wait_until

from .tools import ECHO, Client, Replica, Runner, descriptors, lane_threads

TLS_VARIABLES = ("RAY_USE_TLS", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")


@pytest.fixture(autouse=True)
def nothing_of_a_lane_is_left():
    """After each test: no thread and no descriptor that was not there before."""
    gc.collect()
    before = descriptors()
    yield
    wait_until(lambda: not lane_threads(), timeout_s=20, every_s=0.01, what=lane_threads)

    def more():
        return descriptors() - before

    if more():
        gc.collect()
    wait_until(lambda: not more(), timeout_s=10, every_s=0.05, what=more)


class Authority:
    """A certificate authority that signs keys for replicas and programs."""

    def __init__(self, folder):
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "30", "-subj", "/CN=lanes"),
            *("-keyout", folder / "ca.key", "-out", self.certificate),
        )
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-subj", "/CN=member"),
            *("-keyout", folder / "member.key", "-out", folder / "member.csr"),
        )
        self._openssl(
            *("x509", "-req", "-days", "30", "-in", folder / "member.csr"),
            *("-CA", self.certificate, "-CAkey", folder / "ca.key", "-CAcreateserial"),
            *("-out", folder / "member.crt"),
        )

    def _openssl(self, *arguments):
        subprocess.run(
            ["openssl", *map(str, arguments)],  # noqa: S607 - whichever is installed
            check=True,
            capture_output=True,
        )

    def configure(self, monkeypatch):
        """Have this process speak TLS with a certificate of this authority."""
        monkeypatch.setenv("RAY_USE_TLS", "1")
        monkeypatch.setenv("RAY_TLS_SERVER_CERT", str(self.folder / "member.crt"))
        monkeypatch.setenv("RAY_TLS_SERVER_KEY", str(self.folder / "member.key"))
        monkeypatch.setenv("RAY_TLS_CA_CERT", str(self.certificate))


@pytest.fixture(scope="session")
def make_authority(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates, is not installed")

    def make():
        return Authority(tmp_path_factory.mktemp("authority"))

    return make


@pytest.fixture(scope="session")
def authority(make_authority):
    return make_authority()


@pytest.fixture(autouse=True)
def no_tls(monkeypatch):
    for name in TLS_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["unix", "tcp", "tls"])
def kind(request, monkeypatch):
    """The kind of connection."""
    if request.param == "tls":
        request.getfixturevalue("authority").configure(monkeypatch)
    return request.param


@pytest.fixture
def loop():
    opened = LaneLoop()
    yield opened
    opened.close()


@pytest.fixture
def make_replica():
    opened = []

    def make(function=None, ports=ECHO, thread_count=2, together=None, runner=None):
        if runner is None:
            runner = Runner() if function is None else Runner(function)
        replica = Replica(runner, ports, thread_count, together)
        opened.append(replica)
        return replica

    yield make
    for replica in opened:
        replica.close()


@pytest.fixture
def make_client(loop):
    def make(replica, kind="unix"):
        return Client(loop, replica.connect(kind), replica.ports)

    return make
