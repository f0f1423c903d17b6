"""The suite's side of a program: starts it, asks it, ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.job import Job

__all__ = ["Client", "ProgramError"]

_ROOT = Path(__file__).parent.parent
_CLOSE_TIMEOUT_S = 60.0
_LOG_TAIL_CHARS = 3000


class ProgramError(Exception):
    """A program of the suite failed; the message has what it said."""


class Client:
    """A program in a process of its own, out of reach of the terminal's Ctrl-C."""

    def __init__(self, name: str, job: Job, env: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.about: dict[str, Any] = {}
        self._log = folder / f"{name.replace('/', '-')}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.program", job.to_json()],
                cwd=_ROOT,
                env=os.environ | env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def open(self) -> None:
        """Have the program load its model."""
        self.about = self.ask("open")

    def ask(self, what: str, **arguments: Any) -> Any:
        """Ask and wait for the answer.

        Raises:
            ProgramError: it failed, or ended.
        """
        self.send(what, **arguments)
        return self.receive()

    def send(self, what: str, **arguments: Any) -> None:
        """Ask without waiting, so that several programs can work at once."""
        stream = self._process.stdin
        try:
            print(json.dumps({"do": what, "with": arguments}), file=stream, flush=True)
        except BrokenPipeError:
            raise self._ended() from None

    def receive(self) -> Any:
        """Wait for the answer to what was sent.

        Raises:
            ProgramError: it failed, or ended.
        """
        stream = self._process.stdout
        line = stream.readline() if stream is not None else ""
        if not line:
            raise self._ended()
        answer = json.loads(line)
        if "error" in answer:
            raise ProgramError(f"{self.name}: {answer['error']}\n{self._log_tail()}")
        return answer["value"]

    def close(self) -> None:
        """End the program; by force if it does not end by itself."""
        if self._process.poll() is None:
            children = psutil.Process(self.pid).children(recursive=True)
            try:
                print(json.dumps({"do": "close"}), file=self._process.stdin, flush=True)
                if self._process.stdin is not None:
                    self._process.stdin.close()
                self._process.wait(_CLOSE_TIMEOUT_S)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                pass
            finally:
                for process in (*children, self._process):
                    _kill(process)
                self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()

    def _ended(self) -> ProgramError:
        time.sleep(0.1)  # let it write its last words
        return ProgramError(f"{self.name} ended:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-_LOG_TAIL_CHARS:]


def _kill(process: psutil.Process | subprocess.Popen[str]) -> None:
    try:
        process.kill()
    except (psutil.NoSuchProcess, ProcessLookupError):
        return
