"""Element types: every name, its dtype, and its bytes there and back."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from atriva_ray.errors import BadRequestError, NotSupportedError
from atriva_ray.serve.protocol.datatypes import (
    DATATYPES,
    datatype_of,
    decode,
    dtype_of,
    element_count,
    encode,
    item_size_bytes,
)
from atriva_ray.serve.protocol.text_elements import elements_of, text_array

NUMBERS = {
    "BOOL": np.bool_,
    **{
        f"{sign.upper()}INT{bits}": np.dtype(f"{sign}int{bits}")
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_keep_their_dtype(datatype):
    dtype = np.dtype(NUMBERS[datatype])
    assert np_to_triton_dtype(dtype) == datatype
    assert datatype_of(dtype) == datatype
    assert datatype_of(dtype.newbyteorder(">")) == datatype
    assert dtype_of(datatype) == dtype
    assert item_size_bytes(datatype) == dtype.itemsize


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [
        (np.dtype(np.longlong), "INT64"),
        (np.dtype(ml_dtypes.bfloat16), "BF16"),
        (np.dtype("U"), "BYTES"),
        (np.dtype("U7"), "BYTES"),
        (np.dtype("S3"), "BYTES"),
        (np.dtype(object), "BYTES"),
    ],
)
def test_names_of_other_dtypes(dtype, datatype):
    assert datatype_of(dtype) == datatype


def test_every_name_has_a_dtype():
    assert {*DATATYPES} == {*NUMBERS, "BF16", "BYTES"}
    assert dtype_of("BF16") == np.float32
    assert item_size_bytes("BF16") == 2
    assert dtype_of("BYTES").kind == "U"
    assert item_size_bytes("BYTES") is None


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, np.complex64, np.longdouble, "M8[s]"])
def test_dtypes_without_a_name(dtype):
    with pytest.raises(NotSupportedError, match="has no name for it"):
        datatype_of(np.dtype(dtype))


@pytest.mark.parametrize("name", ["FP8", "fp32", "float32", "TYPE_FP32", "", "FP32 ", "INT4"])
def test_names_without_a_dtype(name):
    for call in (dtype_of, item_size_bytes, lambda name: decode("x", name, (1,), b"1234")):
        with pytest.raises(BadRequestError, match=r"no datatype .*it has BOOL"):
            call(name)


@given(st.sampled_from([*NUMBERS]), st.data())
def test_numbers_there_and_back(datatype, data):
    array = data.draw(hnp.arrays(NUMBERS[datatype], hnp.array_shapes(min_dims=0, min_side=0)))
    chunk = encode(datatype, array)
    assert bytes(chunk) == array.tobytes()
    back = decode("x", datatype, array.shape, chunk)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(st.sampled_from([*NUMBERS]), st.data())
def test_strided_and_foreign_arrays_are_copied(datatype, data):
    plain = data.draw(hnp.arrays(NUMBERS[datatype], hnp.array_shapes(min_dims=2)))
    for array in (plain.T, plain[::-1, ::2], plain.astype(plain.dtype.newbyteorder(">"))):
        wanted = array.astype(array.dtype.newbyteorder("<")).tobytes()
        assert bytes(encode(datatype, array)) == wanted


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_numbers_are_views_of_what_was_received(offset):
    body = bytes(offset) + np.arange(12, dtype=np.float32).tobytes()
    array = decode("x", "FP32", (3, 4), memoryview(body)[offset:])
    assert array.tolist() == np.arange(12).reshape(3, 4).tolist()
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))
    assert not array.flags.writeable


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.bool_])
def test_bytes_are_views_of_the_answer(dtype):
    array = np.zeros((2, 3), dtype)
    chunk = encode(datatype_of(array.dtype), array)
    assert np.shares_memory(array, np.frombuffer(chunk, np.uint8))


def test_every_value_of_bf16():
    bits = np.arange(2**16, dtype=np.uint16)
    array = decode("x", "BF16", (256, 256), bits.tobytes())
    wanted = bits.view(ml_dtypes.bfloat16).astype(np.float32).reshape(256, 256)
    assert array.dtype == np.float32
    assert np.array_equal(array, wanted, equal_nan=True)
    assert bytes(encode("BF16", array)) == bits.tobytes()
    assert bytes(encode("BF16", bits.view(ml_dtypes.bfloat16))) == bits.tobytes()


@given(hnp.arrays(np.uint32, hnp.array_shapes(min_dims=0)))
def test_float32_is_rounded_to_bf16(bits):
    array = bits.view(np.float32)
    rounded = np.frombuffer(encode("BF16", array), ml_dtypes.bfloat16).reshape(array.shape)
    with np.errstate(all="ignore"):
        wanted = array.astype(ml_dtypes.bfloat16)
    assert np.array_equal(rounded.astype(np.float32), wanted.astype(np.float32), equal_nan=True)


def test_a_nan_with_low_bits_only_stays_one():
    array = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    rounded = np.frombuffer(encode("BF16", array), ml_dtypes.bfloat16)
    assert np.isnan(rounded.astype(np.float32)).all()


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "says"),
    [
        ("FP32", (2,), b"1234567", "FP32 in shape [2] takes 8 bytes, and there are 7"),
        ("FP32", (2,), b"123456789", "takes 8 bytes, and there are 9"),
        ("FP32", (0,), b"1", "takes 0 bytes, and there are 1"),
        ("BF16", (), b"1", "takes 2 bytes"),
        ("FP32", (-1,), b"1234", "[-1] has a negative size"),
        ("FP32", (-2, -2), bytes(16), "[-2, -2] has a negative size"),
        ("UINT8", (2**62, 2**62), b"1", "no array can have shape"),
        ("UINT8", (2**32, 2**32), b"", "no array can have shape"),
        ("FP64", (2**61,), b"", "no array can have shape"),
        ("FP64", (0, 2**61), b"", "no array can have shape"),
        ("FP64", (10**9, 10**3), b"", "takes 8,000,000,000,000 bytes"),
        ("UINT8", (1,) * 33, b"1", "no array can have shape [1, 1, 1, 1, 1, 1, 1, 1, …]"),
        ("UINT8", (10**4000,) * 32, b"1", "no array can have shape [1000"),
        ("BYTES", (10**12,), b"1234", "1,000,000,000,000 elements of BYTES take 4 bytes each"),
        ("BOOL", (2,), b"\x01\x02", "a byte of BOOL is 0 or 1"),
        ("BOOL", (1,), b"\xff", "a byte of BOOL is 0 or 1"),
        ("BYTES", (2,), b"\0\0\0\0", "2 elements of BYTES take 4 bytes each"),
        (
            "BYTES",
            (2,),
            b"\4\0\0\0abcd",
            "its shape says 2 elements, and the bytes end in or before the length of element 1",
        ),
        (
            "BYTES",
            (1,),
            b"\0\0\0\0\0\0\0\0",
            "its shape says 1 elements, and 4 bytes are left behind them",
        ),
        ("BYTES", (0,), b"\0\0\0\0", "its shape says 0 elements, and 4 bytes are left behind them"),
        ("BYTES", (2,), b"\2\0\0\0ab\0\0", "the bytes end in or before the length of element 1"),
        ("BYTES", (1,), b"\xff\xff\xff\xffa", "said to have 4,294,967,295 bytes, and 1 are left"),
        ("BYTES", (1,), b"\2\0\0\0\xff\xfe", "element 0 is not text in UTF-8 (invalid start byte)"),
        ("BYTES", (1,), b"\2\0\0\0a\0", "element 0 has a NUL character"),
        ("BYTES", (1,), b"\3\0\0\0a\0b", "element 0 has a NUL character"),
    ],
)
def test_bytes_that_are_no_tensor(datatype, shape, data, says):
    with pytest.raises(BadRequestError) as caught:
        decode("the name", datatype, shape, data)
    assert says in str(caught.value)
    assert "input 'the name'" in str(caught.value)
    assert len(str(caught.value)) < 1000


@given(hnp.array_shapes(min_dims=0, max_side=3), st.data())
def test_text_there_and_back(shape, data):
    count = math.prod(shape)
    texts = data.draw(st.lists(TEXT, min_size=count, max_size=count))
    array = np.array(texts, dtype=object).reshape(shape)
    chunk = encode("BYTES", array)
    assert chunk == serialize_byte_tensor(array).item()
    back = decode("x", "BYTES", shape, chunk)
    assert back.dtype.kind == "U"
    assert back.shape == shape
    assert back.tolist() == array.tolist()
    assert encode("BYTES", back) == chunk


def test_text_of_bytes_goes_out_as_it_is():
    wanted = b"\2\0\0\0\xff\xfe\1\0\0\0a"
    assert encode("BYTES", np.array([b"\xff\xfe", b"a"])) == wanted
    assert encode("BYTES", np.array([b"\xff\xfe", "a"], object)) == wanted
    assert encode("BYTES", np.array([], object)) == b""
    assert elements_of(np.array([["a"], ["b"]])) == ["a", "b"]


def test_no_text_at_all():
    assert decode("x", "BYTES", (0, 3), b"").shape == (0, 3)


def test_a_little_text_makes_no_enormous_array():
    texts = ["x" * 100_000, *[""] * 100_000]
    with pytest.raises(BadRequestError, match=r"an array of 40,000,400,000 bytes; send long"):
        text_array("x", texts, (len(texts),))
    # Some padding is there in any text.
    assert text_array("x", ["x" * 10_000, *[""] * 1000], (1001,)).dtype == "U10000"


@pytest.mark.parametrize("elements", [["\ud800"], ["\0"], [b"\xed\xa0\x80"], [b"ok", b"\x80"]])
def test_elements_that_are_no_text(elements):
    with pytest.raises(BadRequestError, match=r"element [01]"):
        text_array("x", elements, (len(elements),))


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("FP32", np.zeros(1)),
        ("INT8", np.zeros(1, np.uint8)),
        ("FP32", np.array(["1"])),
        ("BYTES", np.zeros(1)),
        ("BYTES", np.array([1.5], object)),
        ("BYTES", np.array([None])),
        ("FP16", np.zeros(1, ml_dtypes.bfloat16)),
    ],
)
def test_an_array_of_another_type_is_not_sent(datatype, array):
    with pytest.raises(TypeError, match="an array of"):
        encode(datatype, array)


def test_how_many_elements_there_are():
    assert element_count("x", ()) == 1
    assert element_count("x", (2, 3)) == 6
    assert element_count("x", (0, 3)) == 0
