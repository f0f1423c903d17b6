"""Does anything grow or get lost when programs and replicas come, go and are killed?

``python -m benchmarks.soak [--cycles 500] [--kills 100]`` starts a Ray node of its own and, on it,
programs that open and close lanes, are killed with requests under way, and kill replicas. Before,
halfway and after, it looks at the processes that live through it all. Exits with 1 if one of them
grew, or if a request was not answered exactly once.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from atriva_inference.tensor import Array
from benchmarks.ray_node import RayNode

__all__ = ["main"]

_ROOT = Path(__file__).parent.parent
_SHM = Path("/dev/shm")  # noqa: S108 - looked at, not written
_CPUS = 8
_SMALL, _LARGE = 256, 3 * 224 * 224
"""Elements of a request: 1 kB and 602 kB."""

_REQUESTS_PER_KILL = 40
_ANSWERED_BEFORE_KILL = 5
_KILLS_PER_MODEL = 4
"""The router restarts a replica later each time it dies soon; a model of its own begins anew."""

_ANSWER_TIMEOUT_S = 120.0
_READY_TIMEOUT_S = 120.0
_LEASE_S = 22.0
"""The router has let go of a killed program by then."""

_QUIET_S = 5.0

_MAX_MORE = {"descriptors": 2, "threads": 2}
"""Ray opens and closes some by itself."""

_MAX_RSS_GROWTH = 4 * 2**20
_MAX_RSS_SHARE = 0.02

Snapshot = dict[str, dict[str, int]]
"""Quantities by process."""


# -- programs --------------------------------------------------------------------------------


class _Requests:
    """Sends requests whose answers tell them apart, and counts what comes back."""

    def __init__(self) -> None:
        self.tally: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._number = 0

    def inputs(self) -> dict[str, Array]:
        """Return the next inputs, large and small ones in turn."""
        with self._lock:
            self._number += 1
            number = self._number
        size = _LARGE if number % 2 else _SMALL
        return {"x": np.arange(number, number + size, dtype=np.float32).reshape(1, -1)}

    def run(self, model: Any) -> None:
        """Run one request and count it."""
        inputs = self.inputs()
        self._count("sent")
        try:
            outputs = model.run(inputs)
        except Exception:  # noqa: BLE001 - whatever it is, it is counted and shown
            self._count("failed")
            traceback.print_exc()
            return
        self._judge(inputs, outputs)

    def submit(self, model: Any) -> tuple[dict[str, Array], Any]:
        """Send one request; `take` counts it."""
        inputs = self.inputs()
        self._count("sent")
        return inputs, model.submit(inputs)

    def take(self, inputs: dict[str, Array], answer: Any) -> None:
        """Wait for an answer and count it."""
        try:
            self._judge(inputs, answer.result(_ANSWER_TIMEOUT_S))
        except TimeoutError:
            self._count("never answered")
        except Exception:  # noqa: BLE001 - whatever it is, it is counted and shown
            self._count("failed")
            traceback.print_exc()

    def _judge(self, inputs: dict[str, Array], outputs: Any) -> None:
        is_right = np.array_equal(outputs["y"].to_numpy(), -inputs["x"])
        self._count("answered once" if is_right else "answered wrong")

    def _count(self, what: str) -> None:
        with self._lock:
            self.tally[what] += 1


class _Ears(logging.Handler):
    """Hears from the runtime's log whether something went wrong."""

    def __init__(self, tally: Counter[str]) -> None:
        super().__init__(logging.WARNING)
        self._tally = tally
        for name in ("atriva_ray", "concurrent.futures"):
            logging.getLogger(name).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take in one line of the log."""
        print(record.getMessage(), file=sys.stderr, flush=True)
        if record.levelno >= logging.ERROR:
            error = record.exc_info[1] if record.exc_info else None
            is_double = isinstance(error, InvalidStateError)
            self._tally["answered twice" if is_double else "errors logged"] += 1
            if record.exc_info:
                traceback.print_exception(*record.exc_info)


class _Holder:
    """A program that keeps a model for as long as the soak lasts, and uses it now and then."""

    def __init__(self, path: str) -> None:
        from atriva_ray import InferenceRuntime  # noqa: PLC0415 - the soak itself has no Ray

        self._requests = _Requests()
        self._ears = _Ears(self._requests.tally)
        self._runtime = InferenceRuntime()
        self._model = self._runtime.load_model(path, name="soak", replicas=1, cpus_per_replica=1)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def replicas(self) -> list[int]:
        """Return the processes that hold the model."""
        return [use.info.pid for use in self._model.replicas]

    def tally(self) -> dict[str, int]:
        """Return what became of all requests."""
        return dict(self._requests.tally)

    def close(self) -> dict[str, int]:
        """End the work; returns what became of all requests."""
        self._is_over.set()
        self._thread.join()
        self._runtime.close()
        return self.tally()

    def _work(self) -> None:
        while not self._is_over.wait(0.02):
            self._requests.run(self._model)


class _Client:
    """A program that opens and closes lanes, and kills replicas that it uses itself."""

    def __init__(self, path: str) -> None:
        from atriva_ray import InferenceRuntime  # noqa: PLC0415 - the soak itself has no Ray

        self._lost_s = _noted_losses()
        self._make_runtime = InferenceRuntime
        self._path = path
        self._requests = _Requests()
        self._ears = _Ears(self._requests.tally)
        self._runtime = InferenceRuntime()
        self._model: Any = None
        self._count = 0
        self._kills = 0

    def cycle(self) -> str:
        """Open a lane, use it, close it; returns which kind of lane it was."""
        with self._make_runtime() as runtime:
            model = runtime.load_model(self._path, name="soak", replicas=1, cpus_per_replica=1)
            (use,) = model.replicas
            for _ in range(4):
                self._requests.run(model)
            sent = [self._requests.submit(model) for _ in range(6)]
            for inputs, answer in sent:
                self._requests.take(inputs, answer)
            return str(use.carrier)

    def kill_replica(self) -> float:
        """Kill a replica with requests under way; returns seconds until that was noticed."""
        model = self._victim()
        victim = model.replicas[0].info.pid
        self._lost_s.clear()
        killed_s: list[float] = []
        answered: list[None] = []

        def kill(_done: Future[Any]) -> None:
            answered.append(None)
            if len(answered) == _ANSWERED_BEFORE_KILL:
                killed_s.append(time.perf_counter())
                os.kill(victim, signal.SIGKILL)

        sent = []
        for _ in range(_REQUESTS_PER_KILL):
            inputs, answer = self._requests.submit(model)
            answer.add_prompt_callback(kill)
            sent.append((inputs, answer))
        for inputs, answer in sent:
            self._requests.take(inputs, answer)
        _wait_until(lambda: bool(self._lost_s), "the client did not notice")
        return self._lost_s[0] - killed_s[0]

    def release(self) -> None:
        """Close the model whose replicas are killed."""
        if self._model is not None:
            self._model.close()
            self._model = None

    def replicas(self) -> list[int]:
        """Return the processes of the model whose replicas are killed, once all are there."""
        if self._model is None:
            return []
        _wait_until(self._is_whole, "no replacement was started")
        return [use.info.pid for use in self._model.replicas]

    def tally(self) -> dict[str, int]:
        """Return what became of all requests."""
        return dict(self._requests.tally)

    def close(self) -> dict[str, int]:
        """End what was opened; returns what became of all requests."""
        self.release()
        self._runtime.close()
        return self.tally()

    def _victim(self) -> Any:
        """Return the model to kill a replica of: one replica, or two, in turn, all ready."""
        if self._model is None or self._kills % _KILLS_PER_MODEL == 0:
            self.release()
            self._count = 1 + self._kills // _KILLS_PER_MODEL % 2
            self._model = self._runtime.load_model(
                self._path,
                name=f"victim-{self._kills}",
                replicas=self._count,
                cpus_per_replica=1,
            )
        self._kills += 1
        _wait_until(self._is_whole, "no replacement was started")
        return self._model

    def _is_whole(self) -> bool:
        pids = [use.info.pid for use in self._model.replicas]
        return len(pids) == self._count and all(map(_is_alive, pids))


def _noted_losses() -> list[float]:
    """Have this process note when a dispatcher takes back what a lost replica has not answered."""
    from atriva_ray.dispatch import Dispatcher  # noqa: PLC0415 - the soak itself has no Ray

    lost_s: list[float] = []
    take_lost = Dispatcher._take_lost  # noqa: SLF001 - nothing else tells the moment

    def noted(*arguments: Any) -> None:
        lost_s.append(time.perf_counter())
        take_lost(*arguments)

    Dispatcher._take_lost = noted  # type: ignore[method-assign]  # noqa: SLF001
    return lost_s


class _Nursery:
    """A program that has loaded everything, and forks programs that are there to be killed."""

    def __init__(self, path: str) -> None:
        from atriva_ray import InferenceRuntime  # noqa: PLC0415 - the soak itself has no Ray

        self._make_runtime = InferenceRuntime  # loaded here, so that those it forks begin at once
        self._path = path

    def start(self) -> int:
        """Fork a program that sends requests without end; returns when they are under way."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _send_endlessly(self._make_runtime, self._path, writing)
        os.close(writing)
        with os.fdopen(reading) as said:
            if not said.read(1):
                raise RuntimeError("a program ended before it was killed")
        return pid

    def reap(self, pid: int) -> None:
        """Take leave of a program that was killed."""
        os.waitpid(pid, 0)

    def close(self) -> None:
        """Nothing is held."""


def _send_endlessly(make_runtime: Callable[[], Any], path: str, writing: int) -> None:
    try:
        runtime = make_runtime()
        model = runtime.load_model(path, name="soak", replicas=1, cpus_per_replica=1)
        requests = _Requests()
        source = iter(requests.inputs, None)
        for number, _ in enumerate(model.create_stream().map(source, in_flight=8)):
            if number == 10:
                os.write(writing, b"!")
    except BaseException:  # noqa: BLE001 - a fork must not go on as its parent would
        traceback.print_exc()
    finally:
        os._exit(1)


_PROGRAMS = {"holder": _Holder, "client": _Client, "nursery": _Nursery}


def _serve(name: str, path: str) -> None:
    """Be a program: answer one JSON line with one until the end of input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not get between the answers
    program: Any = None
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            if program is None:
                program = _PROGRAMS[name](path)
            answer = {"value": getattr(program, method)(*arguments) if method else None}
        except Exception as error:  # noqa: BLE001 - the soak says what happened
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(otherwise)
        time.sleep(0.01)


# -- the soak --------------------------------------------------------------------------------


class _Program:
    """One of the programs, in a process of its own."""

    def __init__(self, name: str, path: Path, env: Mapping[str, str], folder: Path) -> None:
        self._name = name
        self.log = folder / f"{name}.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.soak", "--program", name, str(path)],
                cwd=_ROOT,
                env=os.environ | env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.ask("")

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the program.

        Raises:
            RuntimeError: it failed or ended.
        """
        print(json.dumps([method, arguments]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        answer = json.loads(line) if line else {"error": "it ended"}
        if "error" in answer:
            raise RuntimeError(f"{self._name}: {answer['error']}\n{self.log.read_text()[-3000:]}")
        return answer["value"]

    def close(self) -> None:
        """End it, by force if need be."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        children = psutil.Process(self.pid).children(recursive=True)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


class _Soak:
    """All programs, and what is done with them."""

    def __init__(self, path: Path, env: Mapping[str, str], folder: Path, stack: ExitStack) -> None:
        def start(name: str) -> _Program:
            return stack.enter_context(closing(_Program(name, path, env, folder)))

        self._holder, self._client, self._nursery = map(start, ("holder", "client", "nursery"))
        self._router = next(
            child.pid
            for child in psutil.Process().children(recursive=True)
            if child.name().startswith("ray::Router")
        )
        self._held = self._holder.ask("replicas")
        self.notice_s: list[float] = []
        self.faults: list[str] = []

    def cycle(self) -> None:
        """Open, use and close a lane in the client."""
        carrier = self._client.ask("cycle")
        if carrier != "unix lane":
            self.faults.append(f"a cycle went by {carrier}")

    def kill_program(self) -> None:
        """Start a program and kill it with requests under way."""
        pid = self._nursery.ask("start")
        time.sleep(random.uniform(0, 0.02))  # noqa: S311 - any moment will do
        os.kill(pid, signal.SIGKILL)
        self._nursery.ask("reap", pid)

    def kill_replica(self) -> None:
        """Have the client kill a replica with requests under way."""
        self.notice_s.append(self._client.ask("kill_replica"))

    def look(self, quiet_s: float) -> Snapshot:
        """Return what the processes hold when all has been quiet for so long."""
        replacements = self._client.ask("replicas")
        found = {}
        if replacements:
            found["replacement"] = _holdings(replacements[0])
            del found["replacement"]["mapped slots"]  # as many as requests were under way at once
            self._client.ask("release")
        time.sleep(quiet_s)
        if self._holder.ask("replicas") != self._held:
            self.faults.append("the replica that was not to be killed is another one now")
            self._held = self._holder.ask("replicas")
        for name, pid in (
            ("replica", self._held[0]),
            ("holder", self._holder.pid),
            ("client", self._client.pid),
            ("router", self._router),
        ):
            found[name] = _holdings(pid)
        found["machine"] = {
            "in /dev/shm": len(list(_SHM.iterdir())),
            "dead sockets": _dead_sockets(),
        }
        return found

    def end(self) -> Counter[str]:
        """Close the programs; returns what became of all requests."""
        return Counter(self._client.ask("close")) + Counter(self._holder.ask("close"))


def _holdings(pid: int) -> dict[str, int]:
    process = psutil.Process(pid)
    slots = 0  # Python before 3.13 keeps a descriptor of each
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            slots += "memfd:atriva-slot" in str(descriptor.readlink())
    return {
        "RSS": process.memory_info().rss,
        "descriptors": process.num_fds() - slots,
        "threads": process.num_threads(),
        "mapped slots": Path(f"/proc/{pid}/maps").read_text().count("memfd:atriva-slot"),
    }


def _dead_sockets() -> int:
    names = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()}
    lanes = [name for name in names if name.startswith("@atriva-")]
    return sum(not psutil.pid_exists(int(name.split("-")[1])) for name in lanes)


def _is_flat(quantity: str, start: int, middle: int, end: int) -> bool:
    """Memory may still grow at first; what Ray opens by itself comes and goes."""
    if quantity == "RSS":
        return end - middle <= max(_MAX_RSS_GROWTH, _MAX_RSS_SHARE * middle)
    return end - start <= _MAX_MORE.get(quantity, 0)


def _written(quantity: str, value: int) -> str:
    return f"{value / 1e6:,.1f} MB" if quantity == "RSS" else f"{value:,}"


def _show(console: Console, title: str, looks: list[Snapshot]) -> bool:
    """Print three looks at the same processes; returns whether all is flat."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("", "start", "middle", "end", "verdict"):
        table.add_column(heading, justify="right")
    is_all_flat = True
    start, middle, end = looks
    for process, quantities in start.items():
        for at, (quantity, first) in enumerate(quantities.items()):
            values = (first, middle[process][quantity], end[process][quantity])
            is_flat = _is_flat(quantity, *values)
            is_all_flat &= is_flat
            table.add_row(
                "" if at else process,
                quantity,
                *(_written(quantity, value) for value in values),
                "[green]flat[/]" if is_flat else "[red]not flat[/]",
            )
    console.print(table, highlight=False)
    return is_all_flat


def _soak(console: Console, cycles: int, kills: int) -> bool:
    """Run it all; returns whether everything is flat and every request was answered once."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        tempfile.TemporaryDirectory(prefix="at-", dir="/tmp") as name,
        ExitStack() as stack,
    ):
        folder = Path(name)
        path = _write_model(folder)
        node = RayNode(folder, _CPUS)
        stack.callback(node.stop)
        soak = _Soak(path, node.env, folder, stack)
        progress = stack.enter_context(Progress(*columns, console=console))

        def times(description: str, count: int, work: Callable[[], None]) -> None:
            for _ in progress.track(range(count), description=description):
                work()

        def come_and_go(part: str, number: int) -> None:
            times(f"open, use, close ({part})", _share(cycles, number), soak.cycle)
            times(f"kill a program ({part})", _share(kills, number), soak.kill_program)

        def lose(part: str, number: int) -> None:
            times(f"kill a replica ({part})", _share(kills, number), soak.kill_replica)

        def in_halves(work: Callable[[str, int], None], quiet_s: float) -> list[Snapshot]:
            looks = []
            for number, part in enumerate(("warm-up", "first half", "second half")):
                work(part, number)
                looks.append(soak.look(quiet_s))
            return looks

        programs = in_halves(come_and_go, _LEASE_S)
        replicas = in_halves(lose, _QUIET_S)
        tally = soak.end()
        progress.stop()
        is_flat = [
            _show(console, f"{cycles} cycles, {kills} programs killed", programs),
            _show(console, f"{kills} replicas killed", replicas),
        ]
    return _conclude(console, tally, soak, all(is_flat))


def _share(count: int, part: int) -> int:
    """Return how many of `count` belong to a half; the warm-up, part 0, is a tenth, and extra."""
    return (max(1, count // 10), count // 2, count - count // 2)[part]


def _conclude(console: Console, tally: Counter[str], soak: _Soak, is_flat: bool) -> bool:
    unwanted = {
        name: tally[name]
        for name in ("answered wrong", "answered twice", "failed", "never answered")
    }
    console.print(
        f"requests: {tally['sent']:,} sent, {tally['answered once']:,} answered exactly once, "
        + ", ".join(f"{count:,} {name}" for name, count in unwanted.items())
        + f"; {tally['errors logged']:,} errors logged",
        highlight=False,
        soft_wrap=True,
    )
    times_ms = [1e3 * value for value in soak.notice_s]
    if times_ms:
        console.print(
            f"a killed replica is noticed after {statistics.median(times_ms):.1f} ms (median), "
            f"{max(times_ms):.1f} ms (longest of {len(times_ms)})",
            highlight=False,
        )
    for fault in soak.faults:
        console.print(f"[red]{fault}[/]", highlight=False)
    is_sound = (
        tally["sent"] == tally["answered once"]
        and not any(unwanted.values())
        and not tally["errors logged"]
        and not soak.faults
    )
    console.print(
        "[green]everything is flat[/]" if is_flat else "[red]not everything is flat[/]",
        "[green]no request was lost or doubled[/]"
        if is_sound
        else "[red]requests were lost, doubled or disturbed[/]",
        sep="; ",
    )
    return is_flat and is_sound


def _write_model(folder: Path) -> Path:
    """Write a model that negates: its answer tells which request it belongs to."""
    path = folder / "negate.onnx"
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", "columns"])
        for name in ("x", "y")
    ]
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])], "negate", ports[:1], ports[1:]
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def main() -> int:
    """Run the soak, or be one of its programs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--cycles", type=int, default=500, help="lanes to open, use and close")
    parser.add_argument("--kills", type=int, default=100, help="programs, and replicas, to kill")
    parser.add_argument("--program", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        _serve(*options.program)
        return 0
    return 0 if _soak(Console(), options.cycles, options.kills) else 1


if __name__ == "__main__":
    sys.exit(main())
