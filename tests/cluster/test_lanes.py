"""Lanes on real clusters: the same answers on every way, and nobody harmed whoever dies."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from atriva_ray.lanes.connect import connect_unix
from atriva_ray.lanes.errors import FrameError
from atriva_ray.lanes.handshake import CHALLENGE_BYTES, HELLO_BYTES, make_hello
from tests.cluster.tools import Cluster, DriverError, wait_until
from tests.conftest import EXAMPLES, LIGHT_MODELS, MODELS

CARRIERS = {"auto": "unix lane", "tcp": "tcp lane", "off": "actor calls"}
BACKENDS = ["openvino", "onnxruntime"]
DIGITS = str(EXAMPLES / "models" / "digits.onnx")
HELDOUT = str(EXAMPLES / "models" / "digits_heldout.npz")
SQUEEZENET = str(LIGHT_MODELS / "light_squeezenet.onnx")
CARRIER = "[use.carrier for use in model.replicas]"
PIDS = "[use.info.pid for use in model.replicas]"
PATIENCE_S = 20

JOIN = """
    import asyncio, gc, hashlib, itertools, logging, os, signal, threading, time
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    import numpy as np, ray
    from atriva_ray import *
    runtime = InferenceRuntime()

    from atriva_ray.dispatch import Dispatcher
    lost_s, take_lost = [], Dispatcher._take_lost
    def noted(*arguments):
        lost_s.append(time.monotonic())
        take_lost(*arguments)
    Dispatcher._take_lost = noted

    def ways_to_run(model):
        async def gathered(inputs):
            return await model.run_async(inputs)
        def requested(inputs):
            request = model.create_async_request()
            request.start(inputs)
            return request.wait()
        stream = model.create_stream()
        return {
            "run": model.run,
            "submit": lambda inputs: model.submit(inputs).result(),
            "run_async": lambda inputs: asyncio.run(gathered(inputs)),
            "stream.run": stream.run,
            "stream.map": lambda inputs: list(stream.map([inputs, inputs]))[1],
            "create_async_request": requested,
        }

    def plain(answer):
        arrays = {name: tensor.to_numpy() for name, tensor in answer.items()}
        return {
            name: [
                array.dtype.kind,
                list(array.shape),
                array.tolist() if array.size <= 4096
                else hashlib.sha256(array.tobytes()).hexdigest(),
            ]
            for name, array in arrays.items()
        }

    def outcome(work, *arguments):
        try:
            return plain(work(*arguments))
        except Exception as error:
            return [type(error).__name__, str(error)]

    def all_outcomes(model, inputs):
        return {way: outcome(work, inputs) for way, work in ways_to_run(model).items()}
"""


@pytest.fixture(scope="module")
def own_models(tmp_path_factory):
    """Models that the repository has no files of: text, and outputs as large as inputs."""
    folder = tmp_path_factory.mktemp("own")
    _one_node(folder / "negate.onnx", "Neg", TensorProto.FLOAT, ["rows", "columns"])
    _one_node(folder / "text.onnx", "Gather", TensorProto.STRING, [3], np.array([2, 1, 0]))
    return folder


def _one_node(path, operator, element_type, shape, *constants):
    ports = [helper.make_tensor_value_info(name, element_type, shape) for name in ("x", "y")]
    weights = [numpy_helper.from_array(value, f"c{at}") for at, value in enumerate(constants)]
    node = helper.make_node(operator, ["x", *(weight.name for weight in weights)], ["y"])
    graph = helper.make_graph([node], operator, ports[:1], ports[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def join(drivers, address, lanes="auto", env=None):
    """Start a program that may use one kind of lane."""
    driver = drivers.start({"RAY_ADDRESS": address, "ATRIVA_LANES": lanes, **(env or {})})
    driver.do(JOIN)
    return driver


@pytest.fixture(scope="module")
def programs(cluster, module_drivers):
    """One program for each setting; all on the replicas' node."""
    start = partial(join, module_drivers, cluster.address)
    with ThreadPoolExecutor() as threads:
        return dict(zip(CARRIERS, threads.map(start, CARRIERS), strict=True))


@pytest.fixture(scope="module")
def negate(own_models):
    return str(own_models / "negate.onnx")


# -- the same on every way -------------------------------------------------------------------


@pytest.mark.parametrize(("lanes", "carrier"), CARRIERS.items())
def test_the_variable_chooses_how_requests_travel(programs, lanes, carrier):
    program = programs[lanes]
    program.do(f"model = runtime.load_model({DIGITS!r}, name='chosen')")
    assert program.get(CARRIER) == [carrier]
    assert program.get("model.run({'input': np.zeros((1, 1, 8, 8), 'f4')})['output'].shape") == [
        1,
        10,
    ]
    program.do("model.close()")


def test_any_other_value_of_the_variable_is_refused(cluster, start_driver):
    program = start_driver({"RAY_ADDRESS": cluster.address, "ATRIVA_LANES": "fast"})
    program.do("from atriva_ray import *")
    with pytest.raises(
        DriverError, match=r"ATRIVA_LANES='fast' .* expected auto, tcp, off"
    ) as info:
        program.do("InferenceRuntime()")
    assert info.value.name == "OptionError"


@pytest.fixture(scope="module", params=BACKENDS)
def loaded(request, programs, own_models):
    """The programs, with all models loaded; they share the replicas."""
    backend = request.param
    paths = {
        "digits": DIGITS,
        "squeezenet": SQUEEZENET,
        "negate": str(own_models / "negate.onnx"),
        "text": str(own_models / "text.onnx"),
        **{name: str(MODELS / f"onnx/{name}.onnx") for name in ("dynamic", "multi")},
        "picky": str(MODELS / "onnx" / "data_dependent.onnx"),
    }
    config = {"INFERENCE_PRECISION_HINT": "f32"} if backend == "openvino" else {}
    for program in programs.values():
        program.do(f"""
            paths, other_runtime = {paths!r}, InferenceRuntime({backend!r})
            def load(name):
                return other_runtime.load_model(
                    paths[name], "CPU", config={config!r}, name="{backend}-" + name,
                )
            with ThreadPoolExecutor(4) as threads:
                loaded = dict(zip(paths, threads.map(load, paths)))
        """)
    yield programs
    for program in programs.values():
        program.do("other_runtime.close()")


IMAGE = "np.random.default_rng(5).random((1, 3, 224, 224), np.float32)"
PICTURE = "np.random.default_rng(6).random({shape}, np.float32)"
ROWS = "np.random.default_rng(7).random({shape}, np.float32)"
CASES = {
    "256 bytes": ("digits", f"{{'input': np.load({HELDOUT!r})['images'][:1]}}"),
    "602 kB": ("squeezenet", f"{{model.inputs[0].name: {IMAGE}}}"),
    "32 bytes in and out": ("negate", f"{{'x': {ROWS.format(shape=(1, 8))}}}"),
    "602 kB in and out": ("negate", f"{{'x': {ROWS.format(shape=(2, 75264))}}}"),
    "other 602 kB in and out": ("negate", f"{{'x': {ROWS.format(shape=(1, 150528))}}}"),
    "9 MB in and out": ("negate", f"{{'x': {ROWS.format(shape=(3, 750_000))}}}"),
    "small again": ("negate", f"{{'x': {ROWS.format(shape=(3, 5))}}}"),
    "two inputs": ("multi", "{'a': np.ones((3, 4), 'f4'), 'b': np.arange(12).reshape(3, 4) - 6}"),
    "text": ("text", "{'x': np.array(['one', 'zwölf', ''])}"),
    "bytes": ("text", "{'x': np.array([b'one', b'two', b'three'])}"),
    "one shape": ("dynamic", f"{{'input': {PICTURE.format(shape=(1, 3, 8, 8))}}}"),
    "another shape": ("dynamic", f"{{'input': {PICTURE.format(shape=(2, 3, 5, 7))}}}"),
    "a large shape": ("dynamic", f"{{'input': {PICTURE.format(shape=(2, 3, 160, 160))}}}"),
    "a shape compiled for": (
        "dynamic",
        f"{{'input': runtime.tensor_from_numpy({PICTURE.format(shape=(1, 3, 6, 4))}, "
        "shape_override=(1, 3, 6, 4))}",
    ),
    "a large shape compiled for": (
        "dynamic",
        f"{{'input': runtime.tensor_from_numpy({PICTURE.format(shape=(1, 3, 160, 160))}, "
        "shape_override=(1, 3, 160, 160))}",
    ),
    "shapes said by values": ("picky", "{'data': np.arange(6, dtype='f4'), 'shape': [2, 3]}"),
}
FAILURES = {
    "in the backend": ("picky", "{'data': np.arange(6, dtype='f4'), 'shape': [5, 5]}"),
    "with 602 kB": ("picky", "{'data': np.zeros(150528, 'f4'), 'shape': [5, 5]}"),
    "on a shape compiled for": (
        "picky",
        "{'data': runtime.tensor_from_numpy(np.arange(6, dtype='f4'), None, (6,)), "
        "'shape': np.array([5, 5])}",
    ),
    "name": ("digits", "{'picture': np.zeros((1, 1, 8, 8), 'f4')}"),
    "shape": ("digits", "{'input': np.zeros((1, 3, 8, 8), 'f4')}"),
    "type": ("digits", "{'input': np.zeros((1, 1, 8, 8), 'c8')}"),
    "text": ("text", "{'x': np.zeros(3)}"),
}


def outcomes(program, case):
    name, inputs = case
    program.do(f"model = loaded[{name!r}]")
    return program.get(f"all_outcomes(model, {inputs})")


def assert_same_answer(answer, expected):
    assert answer.keys() == expected.keys()
    for name, (kind, shape, values) in expected.items():
        assert answer[name][:2] == [kind, shape]
        if kind == "f" and not isinstance(values, str):
            assert answer[name][2] == pytest.approx(np.array(values), rel=1e-4, abs=1e-6)
        else:
            assert answer[name][2] == values


@pytest.mark.parametrize("case", CASES)
def test_answers_are_equal_on_every_way(loaded, case):
    reference = outcomes(loaded["off"], CASES[case])["run"]
    assert isinstance(reference, dict), reference
    for program in loaded.values():
        for way, answer in outcomes(program, CASES[case]).items():
            assert isinstance(answer, dict), f"{way}: {answer}"
            assert_same_answer(answer, reference)


@pytest.mark.parametrize("case", FAILURES)
def test_errors_are_equal_on_every_way(loaded, case):
    reference = outcomes(loaded["off"], FAILURES[case])["run"]
    assert isinstance(reference, list), reference
    for program in loaded.values():
        for way, error in outcomes(program, FAILURES[case]).items():
            assert error == reference, way
        good = outcomes(program, CASES["shapes said by values"])["run"]
        assert good["output"][1] == [2, 3]


# -- nobody is harmed ------------------------------------------------------------------------

MANY = """
    def answered_while(killed_after, count, kill):
        answers, counts = [None] * count, [0] * count
        under_way, taken, done_s = [], threading.Lock(), []
        def done(number, future):
            with taken:
                counts[number] += 1
                done_s.append(time.monotonic())
                if len(done_s) == killed_after:
                    under_way.append(count - killed_after)
                    kill()
        base = np.arange(150528, dtype="f4").reshape(1, -1)
        futures = [model.submit({"x": base + number}) for number in range(count)]
        for number, future in enumerate(futures):
            future.add_prompt_callback(lambda future, number=number: done(number, future))
        wrong = [
            number for number, future in enumerate(futures)
            if not np.array_equal(future.result(60)["y"].to_numpy(), -(base + number))
        ]
        return {"counts": counts, "wrong": wrong, "under_way": under_way}
"""


@pytest.mark.parametrize(
    ("lanes", "replicas"), [("auto", 1), ("auto", 2), ("tcp", 1)], ids=["one", "two", "one, by tcp"]
)
def test_requests_survive_the_replica_that_has_them(programs, negate, lanes, replicas):
    program = programs[lanes]
    program.do(MANY)
    name = f"killed-{lanes}-{replicas}"
    program.do(f"model = runtime.load_model({negate!r}, name={name!r}, replicas={replicas})")
    victim = program.get(PIDS)[0]
    program.do(f"""
        def kill():
            killed_s.append(time.monotonic())
            os.kill({victim}, signal.SIGKILL)
        killed_s = []
        lost_s.clear()
        found = answered_while(5, 50, kill)
    """)
    found = program.get("found")
    assert found["counts"] == [1] * 50
    assert found["wrong"] == []
    assert found["under_way"] == [45]
    assert program.get("len(lost_s)") == 1
    assert program.get("lost_s[0] - killed_s[0]") < 5
    wait_until(lambda: victim not in (pids := program.get(PIDS)) and len(pids) == replicas)
    assert program.get(CARRIER) == [CARRIERS[lanes]] * replicas
    program.do("found = answered_while(-1, 50, None)")
    assert program.get("found['counts'] == [1] * 50 and found['wrong']") == []
    wait_until(lambda: program.get("min(use.answered for use in model.replicas)") > 0)
    assert "InvalidStateError" not in program.log()
    program.do("model.close()")


def state_of(pid):
    """Count a process's descriptors and threads by what they are.

    Threads of gRPC are not counted: Ray's own connections start and end them as time passes.
    """
    process = Path(f"/proc/{pid}")
    found = Counter()
    for descriptor in process.joinpath("fd").iterdir():
        with suppress(FileNotFoundError):
            found[str(descriptor.readlink()).partition(":[")[0]] += 1
    for task in process.joinpath("task").iterdir():
        with suppress(FileNotFoundError):
            name = task.joinpath("comm").read_text().rstrip()
            found[name] += not name.startswith("grpc_")
    return found


def test_a_program_that_is_killed_disturbs_nobody(programs, negate, cluster, drivers):
    stays = programs["auto"]
    stays.do(f"model = runtime.load_model({negate!r}, name='shared-lane', replicas=1)")
    stays.do("""
        stop = threading.Event()
        def work():
            base = np.arange(150528, dtype="f4").reshape(1, -1)
            wrong = count = 0
            while not stop.is_set():
                count += 1
                answer = model.run({"x": base + count})["y"].to_numpy()
                wrong += not np.array_equal(answer, -(base + count))
            return count, wrong
    """)
    (pid,) = stays.get(PIDS)
    states = []
    for _ in range(2):  # the first one warms up whatever the replica then keeps
        victim = join(drivers, cluster.address)
        victim.do(f"""
            model = runtime.load_model({negate!r}, name='shared-lane')
            base = np.zeros((1, 150528), 'f4')
            def endless():
                for _ in model.create_stream().map(itertools.repeat({{"x": base}})):
                    pass
            threading.Thread(target=endless, daemon=True).start()
        """)
        assert victim.get(PIDS) == [pid]
        assert victim.get(CARRIER) == ["unix lane"]
        stays.do("stop.clear(); working = ThreadPoolExecutor(1).submit(work)")
        wait_until(lambda victim=victim: victim.get("model.replicas[0].answered") > 20)
        victim.kill()
        before = stays.get("model.replicas[0].answered")
        wait_until(lambda before=before: stays.get("model.replicas[0].answered") > before + 50)
        stays.do("stop.set()")
        count, wrong = stays.get("working.result()")
        assert count > 50
        assert wrong == 0
        if states:
            wait_until(
                lambda: not state_of(pid) - states[0],
                timeout_s=PATIENCE_S,
                what=lambda: state_of(pid) - states[0],
            )
        else:
            states.append(_settled(pid))
    assert stays.get(PIDS) == [pid]
    stays.do("model.close()")


def _settled(pid):
    """Return descriptors and threads once they have been the same for a while."""
    seen = []

    def is_settled():
        seen.append(state_of(pid))
        return len(seen) > 20 and all(each == seen[-1] for each in seen[-20:])

    wait_until(is_settled, timeout_s=PATIENCE_S, what=lambda: seen)
    return seen[-1]


def test_many_waiting_requests_do_not_starve_another_program(programs, cluster, drivers, tmp_path):
    count = str(tmp_path / "count")
    many, single = programs["auto"], join(drivers, cluster.address)
    for program in (many, single):
        program.do(f"""
            model = runtime.load_model({SQUEEZENET!r}, name='fair', replicas=1)
            inputs = {{model.inputs[0].name: np.ones((1, 3, 224, 224), 'f4')}}
            model.run(inputs)
            answered = np.memmap({count!r}, 'i8', 'w+', shape=1)
        """)
    many.do("""
        def counted(future):
            answered[0] += 1
        requests = [model.submit(inputs) for _ in range(1_000)]
        for request in requests:
            request.add_prompt_callback(counted)
    """)
    single.do("""
        meanwhile = []
        for _ in range(20):
            before = int(answered[0])
            model.run(inputs)
            meanwhile.append(int(answered[0]) - before)
    """)
    meanwhile = single.get("meanwhile")
    assert many.get("sum(request.done() for request in requests)") < 1_000
    slots = many.get("model.replicas[0].route.slot_count")
    assert sorted(meanwhile)[10] <= 8 * slots, meanwhile
    assert max(meanwhile) < 200, meanwhile
    many.do("model.close()")


def _read_to_the_end(connected):
    connected.settimeout(PATIENCE_S)
    with suppress(ConnectionError):
        while connected.recv(65536):
            pass
    connected.close()


def _garbage_before_the_challenge(connected, _token):
    connected.sendall(os.urandom(HELLO_BYTES))


def _wrong_token(connected, _token):
    challenge = connected.recv(CHALLENGE_BYTES, socket.MSG_WAITALL)
    connected.sendall(make_hello(b"?" * 32, challenge))


def _half_a_hello(connected, _token):
    connected.sendall(b"atriva-lane/1\0\0\0")


def _garbage_after_the_right_token(connected, token):
    challenge = connected.recv(CHALLENGE_BYTES, socket.MSG_WAITALL)
    connected.sendall(make_hello(token, challenge) + os.urandom(4096))


STRANGERS = [
    _garbage_before_the_challenge,
    _wrong_token,
    _half_a_hello,
    _garbage_after_the_right_token,
]


@pytest.mark.parametrize("lanes", ["auto", "tcp"])
def test_strangers_are_sent_away_and_disturb_nobody(programs, negate, lanes):
    program = programs[lanes]
    program.do(f"""
        model = runtime.load_model({negate!r}, name='visited', replicas=1)
        use = model.replicas[0]
        actor = next(iter(model._dispatcher._lines.values())).actor
        base = np.arange(150528, dtype="f4").reshape(1, -1)
        def right():
            return all(
                np.array_equal(model.run({{"x": base + n}})["y"].to_numpy(), -(base + n))
                for n in range(20)
            )
    """)
    pid, name, token = program.get("[use.info.pid, use.info.lane_name, use.info.lane_token.hex()]")
    address = program.get("list(ray.get(actor.listen_tcp.remote()))") if lanes == "tcp" else None

    def stranger():
        if address is not None:
            return socket.create_connection(tuple(address), PATIENCE_S)
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(b"\0" + name.encode())
        return connected

    assert program.get("right()")
    strangers = [stranger() for _ in STRANGERS]
    for connected, send in zip(strangers, STRANGERS, strict=True):
        send(connected, bytes.fromhex(token))
    assert program.get("right()")
    for connected in strangers:
        _read_to_the_end(connected)
    with pytest.raises(FrameError):
        connect_unix(name, b"!" * 32)
    assert program.get("right()")
    assert program.get(PIDS) == [pid]
    assert program.get(CARRIER) == [CARRIERS[lanes]]
    program.do("model.close()")


# -- between nodes ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory):
    """An authority, and a certificate of it for this host, as Ray's environment variables."""
    if shutil.which("openssl") is None:
        return {}
    import ray  # noqa: PLC0415 - only this needs it

    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        command = ["openssl", *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-subj", "/CN=lanes", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", *curve, "-subj", "/CN=member", "-keyout", "member.key", "-out", "member.csr")
    names = f"DNS:localhost,IP:127.0.0.1,IP:{ray.util.get_node_ip_address()}"
    (folder / "names").write_text(f"subjectAltName={names}\n")
    openssl(
        *("x509", "-req", "-in", "member.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-extfile", "names", "-out", "member.crt"),
    )
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "member.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "member.key"),
        "RAY_TLS_CA_CERT": str(folder / "ca.crt"),
    }


@pytest.fixture(scope="module")
def far(short_tmp, module_drivers, tls_files, negate):
    """A program on a cluster, with TLS if that can be had; only its second node has FASTCPU."""
    folder = short_tmp / "far"
    folder.mkdir()
    cluster = Cluster(folder, {"ATRIVA_MODEL_STORE": str(folder / "store"), **tls_files})
    try:
        cluster.add_node({"ATRIVA_OPENVINO_PLUGINS": "FASTCPU=openvino_intel_cpu_plugin"})
        program = join(module_drivers, cluster.address, env=tls_files)
        program.do(f"""
            model = runtime.load_model({negate!r}, "FASTCPU")
            line = next(iter(model._dispatcher._lines.values()))
            base = np.arange(150528, dtype="f4").reshape(1, -1)
            def right():
                return all(
                    np.array_equal(answer["y"].to_numpy(), -(base + number))
                    for number, answer in enumerate(
                        model.create_stream().map({{"x": base + number}} for number in range(20))
                    )
                )
        """)
        yield program
        program.close()
    finally:
        cluster.stop()


def test_a_replica_on_another_node_is_reached_by_tcp(far):
    here, there = far.get("[ray.get_runtime_context().get_node_id(), line.use.info.node_id]")
    assert here != there
    assert far.get(CARRIER) == ["tcp lane"]
    assert far.get("right()")


def test_tcp_lanes_of_a_cluster_with_tls_are_encrypted(far, tls_files):
    if not tls_files:
        pytest.skip("openssl, which makes the certificates, is not installed")
    assert far.get("line.carrier._lane.wire._socket.version()") in ("TLSv1.2", "TLSv1.3")
    host, port = far.get("list(ray.get(line.actor.listen_tcp.remote()))")
    with socket.create_connection((host, port), PATIENCE_S) as plain:
        plain.sendall(b"no handshake of TLS at all\n")
        received = bytearray()
        with suppress(ConnectionError):
            while some := plain.recv(4096):
                received += some
    assert b"atriva" not in received
    assert far.get("right()")
    assert far.get(CARRIER) == ["tcp lane"]


# -- the end ---------------------------------------------------------------------------------

OPENED = """
    def opened():
        kinds = []
        for path in Path("/proc/self/fd").iterdir():
            try:
                target = os.readlink(path)
            except OSError:
                continue
            kinds.append(target.partition(":[")[0] if ":" in target else "file")
        return {kind: kinds.count(kind) for kind in set(kinds)}

    def use_and_close():
        with InferenceRuntime() as once:
            model = once.load_model(path, name="closing")
            pids.extend(use.info.pid for use in model.replicas)
            carriers.extend(use.carrier for use in model.replicas)
            for size in (8, 150528, 1_000_000):
                inputs = {"x": np.ones((1, size), "f4")}
                model.run(inputs)
                list(model.create_stream().map([inputs] * 8))
            running = [model.submit(inputs) for _ in range(8)]
    pids, carriers = [], []
"""
THREADS = "[thread.name for thread in threading.enumerate() if thread.name.startswith('atriva')]"
MAPS = "[line for line in open('/proc/self/maps') if 'atriva' in line]"


@pytest.mark.parametrize("lanes", ["auto", "tcp"])
def test_a_closed_runtime_leaves_nothing(cluster, drivers, negate, lanes):
    program = join(drivers, cluster.address, lanes)
    program.do(OPENED)
    program.do(f"runtime.close(); path = {negate!r}")
    program.do("use_and_close()")  # what Ray opens once and keeps is open now
    before = program.get("opened()")
    program.do("use_and_close()")
    assert program.get("carriers") == [CARRIERS[lanes]] * 2
    assert program.get(THREADS) == []
    assert program.get(MAPS) == []
    assert not any("memfd" in kind for kind in program.get("opened()"))
    wait_until(
        lambda: all(before.get(kind, 0) >= n for kind, n in program.get("opened()").items()),
        timeout_s=PATIENCE_S,
        what=lambda: (before, program.get("opened()")),
    )
    wait_until(lambda: not any(map(psutil.pid_exists, program.get("pids"))))
    assert not [path for path in Path("/dev/shm").iterdir() if "atriva" in path.name]  # noqa: S108
    wait_until(lambda: not sockets_of_the_dead(), timeout_s=PATIENCE_S, what=sockets_of_the_dead)


def sockets_of_the_dead():
    """Return the abstract sockets of lanes whose processes have ended."""
    names = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()]
    lanes = {name for name in names if name.startswith("@atriva-")}
    return [name for name in lanes if not psutil.pid_exists(int(name.split("-")[1]))]
