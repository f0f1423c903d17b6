"""The Ray cluster of the suite: one node on this machine, of its own, with its own token."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

__all__ = ["RayNode", "RayNodeError"]

_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 10.0


class RayNodeError(Exception):
    """The node did not start."""


class RayNode:
    """``ray start --head --block``, and the environment that programs need to join it."""

    def __init__(self, folder: Path, cpus: int) -> None:
        """Start the node and wait until it runs.

        Args:
            folder: takes its files; its path should be short, for it holds Unix sockets.
            cpus: logical CPUs. Replicas reserve theirs and stay while others are measured, so that
                there must be enough for all of them together; threads are bounded by each model.

        Raises:
            RayNodeError: it ended, or did not start in time.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.env = {
            "RAY_ADDRESS": f"127.0.0.1:{port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": str(folder),
            "ATRIVA_MODEL_STORE": str(folder / "store"),
        }
        self._log = folder / "node.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("ray")),
                    *("start", "--head", "--block", "--node-ip-address=127.0.0.1"),
                    *(f"--port={port}", f"--num-cpus={cpus}", f"--temp-dir={folder / 'ray'}"),
                    *("--include-dashboard=false", "--disable-usage-stats"),
                ],
                env=os.environ | self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._await_start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the node and every process of it."""
        if self._process.poll() is not None:
            return
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(signal.SIGTERM)
        psutil.wait_procs(children, _STOP_TIMEOUT_S)
        for process in (*children, self._process):
            try:
                process.kill()
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        self._process.wait()

    def _await_start(self) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while "Ray runtime started" not in self._log.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RayNodeError(f"Ray did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.2)
