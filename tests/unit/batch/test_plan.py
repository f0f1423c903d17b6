"""What a job is, before it begins: rows per request, and what tells it from other jobs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_inference.device import DeviceSpec
from atriva_inference.errors import OptionError
from atriva_inference.options import CompileOptions, PerformanceHint
from atriva_inference.ports import Port
from atriva_inference.preprocess import Preprocessing
from atriva_ray.batch.fragment_run import FragmentWork
from atriva_ray.batch.fragments import InputFile
from atriva_ray.batch.manifest import differences
from atriva_ray.batch.outputs import TopK
from atriva_ray.batch.plan import batch_size_of, describe, fingerprint
from atriva_ray.batch.sinks import OutputFormat
from atriva_ray.routing.messages import ModelRequest


def port(shape, dtype="float32", name="x"):
    return Port(name, (name,), np.dtype(dtype), shape)


FREE = port((-1, 10))


# -- rows per request ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((-1, 3, 224, 224), "float32", 1),  # 588 KiB
        ((-1, 224, 224, 3), "uint8", 4),  # 147 KiB
        ((-1, 3, 64, 64), "float32", 16),  # 48 KiB
        ((-1, 1 << 18), "float32", 1),
        ((-1, 1 << 17), "float32", 2),
        ((-1, 1 << 22), "float32", 1),
        ((-1, 10), "float32", 256),
        ((-1,), "bool", 256),
        ((-1, 3, -1, -1), "float32", 256),
        ((-1,), "O", 256),
        ((-1,), "U", 256),
    ],
)
def test_a_request_has_about_a_mebibyte(shape, dtype, expected):
    assert batch_size_of("auto", [port(shape, dtype)], [FREE]) == expected


def test_all_inputs_count_together():
    half = port((-1, 1 << 17))
    assert batch_size_of("auto", [half], [FREE]) == 2
    assert batch_size_of("auto", [half, half], [FREE]) == 1


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=3), st.sampled_from(["u1", "f4"]))
def test_it_is_a_power_of_two_that_fits(sizes, dtype):
    inputs = [port((-1, size), dtype) for size in sizes]
    size = batch_size_of("auto", inputs, [FREE])
    row_bytes = sum(np.dtype(dtype).itemsize * size for size in sizes)
    assert size in [1 << power for power in range(9)]
    assert size == 1 or size * row_bytes <= 1 << 20
    assert size == 256 or 2 * size * row_bytes > 1 << 20


@pytest.mark.parametrize("shape", [(1, 10), (4, 10), (10,), (), None])
@pytest.mark.parametrize("is_input", [True, False])
def test_every_port_must_have_a_dynamic_first_dimension(shape, is_input):
    fixed = port(shape, name="stiff")
    inputs, outputs = ([FREE, fixed], [FREE]) if is_input else ([FREE], [FREE, fixed])
    assert batch_size_of("auto", inputs, outputs) == 1
    assert batch_size_of(1, inputs, outputs) == 1
    with pytest.raises(OptionError, match=r"batch_size='2'.*1: stiff: .* one row at a time"):
        batch_size_of(2, inputs, outputs)


@pytest.mark.parametrize("asked", [1, 2, 7, 100_000])
def test_what_is_asked_for_is_done(asked):
    assert batch_size_of(asked, [FREE], [FREE]) == asked


@pytest.mark.parametrize("asked", [0, -1, True, 1.5, "8", "many", None])
def test_what_is_no_number_of_rows(asked):
    with pytest.raises(OptionError, match="'auto' or a number of rows, at least 1"):
        batch_size_of(asked, [FREE], [FREE])


# -- what tells jobs apart -------------------------------------------------------------------


FOLDER = PurePosixPath("/data")


@dataclass(frozen=True)
class Pictures:
    """A source that is plain data with a few things that are not."""

    every: int = 1
    folder: PurePosixPath = FOLDER
    fields: tuple[pa.Field, ...] = (pa.field("x", pa.int64()),)
    kind: str = "pictures"


class Bare:
    kind = "bare"


REQUEST = ModelRequest(
    key="resnet",
    name="resnet",
    path="/models/resnet.onnx",
    fingerprint="f00d",
    backend="openvino",
    device=DeviceSpec.parse("AUTO"),
    options=CompileOptions(
        config={"INFERENCE_PRECISION_HINT": "f16", "NUM_STREAMS": 2},
        preprocessing=Preprocessing(resize=(8, 8), mean=(1, 2, 3)),
    ),
)
ORIGIN = SimpleNamespace(request=REQUEST)
WORK = FragmentWork(
    Pictures(), "/out", OutputFormat.PARQUET, 4, TopK(5, None, ("cat", "dog")), columns={"x": "a"}
)
FILES = [InputFile(f"/data/{index}.png", index) for index in range(3)]


def with_request(**changes):
    return SimpleNamespace(request=replace(REQUEST, **changes))


def with_options(**changes):
    return with_request(options=replace(REQUEST.options, **changes))


@pytest.mark.parametrize(
    "work",
    [WORK, replace(WORK, top_k=None), replace(WORK, source=Bare()), replace(WORK, keep=["a"])],
)
def test_a_description_is_what_json_makes_of_it(work):
    told = describe(ORIGIN, work, FILES)
    assert differences(json.loads(json.dumps(told)), told) == []


def test_a_model_without_preprocessing_is_described():
    told = describe(with_options(preprocessing=None), WORK, FILES)
    assert differences(json.loads(json.dumps(told)), told) == []


@pytest.mark.parametrize(
    ("origin", "work", "files", "what"),
    [
        (with_request(fingerprint="beef"), WORK, FILES, "model"),
        (with_request(backend="onnxruntime"), WORK, FILES, "backend"),
        (with_options(config={"NUM_STREAMS": 3}), WORK, FILES, "config"),
        (with_options(preprocessing=None), WORK, FILES, "preprocessing"),
        (
            with_options(preprocessing=Preprocessing(resize=(8, 8), mean=(1, 2, 4))),
            *(WORK, FILES, "preprocessing"),
        ),
        (ORIGIN, replace(WORK, source=Pictures(every=2)), FILES, "input_settings"),
        (ORIGIN, replace(WORK, source=Pictures(kind="video")), FILES, "input"),
        (ORIGIN, replace(WORK, columns={"x": "b"}), FILES, "columns"),
        (ORIGIN, replace(WORK, keep=("a",)), FILES, "keep"),
        (ORIGIN, replace(WORK, batch_size=8), FILES, "batch_size"),
        (ORIGIN, replace(WORK, format=OutputFormat.JSONL), FILES, "output_format"),
        (ORIGIN, replace(WORK, top_k=None), FILES, "top_k"),
        (ORIGIN, replace(WORK, top_k=TopK(4, None, ("cat", "dog"))), FILES, "top_k"),
        (ORIGIN, replace(WORK, top_k=TopK(5, "y", ("cat", "dog"))), FILES, "top_k"),
        (ORIGIN, replace(WORK, top_k=TopK(5, None, ("dog", "cat"))), FILES, "top_k"),
        (ORIGIN, replace(WORK, top_k=TopK(5, None)), FILES, "top_k"),
        (ORIGIN, replace(WORK, fit="crop"), FILES, "fit"),
        (ORIGIN, WORK, FILES[1:], "input_files"),
    ],
)
def test_what_makes_another_job(origin, work, files, what):
    (told, *_) = [
        difference
        for difference in differences(describe(ORIGIN, WORK, FILES), describe(origin, work, files))
        if difference.startswith(f"{what} was ")
    ]
    assert told


@pytest.mark.parametrize(
    ("origin", "work"),
    [
        (with_request(device=DeviceSpec.parse("CPU"), replica_count=3, reserve_cpus=False), WORK),
        (with_request(path="/elsewhere/resnet.onnx", name="net", key="net"), WORK),
        (with_options(hint=PerformanceHint.LATENCY, thread_count=3), WORK),
        (
            with_options(config={"NUM_STREAMS": 2, "INFERENCE_PRECISION_HINT": "f16"}),
            replace(WORK, folder="/elsewhere"),
        ),
        (ORIGIN, replace(WORK, keep=[], columns={"x": "a"})),
    ],
)
def test_what_makes_no_other_job(origin, work):
    assert describe(origin, work, FILES) == describe(ORIGIN, WORK, FILES)


texts = st.lists(st.text(max_size=3), max_size=4)


@given(texts, texts)
def test_other_texts_have_another_fingerprint(one, other):
    assert (fingerprint(one) == fingerprint(other)) is (one == other)


def test_fingerprints_stay_the_same_from_one_version_to_the_next():
    assert fingerprint(["cat", "größer"]) == "03d669b36db0a08c"
