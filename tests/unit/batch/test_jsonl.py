"""JSON lines as rows."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_ray.batch.sources.jsonl import JsonLinesSource
from atriva_ray.errors import InputFileError
from tests.unit.batch.reading import VECTOR, by_fragment, port, reading, reasons, rows_of, values


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.jsonl"


def lines(*objects):
    return "".join(json.dumps(each) + "\n" for each in objects)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"x": [1, 2, 3]}, {"x": [4, 5, 6.5]}),
        ({"features": [1, 2, 3], "x2": [9]}, {"features": [4, 5, 6.5], "x2": [9]}),
        ({"id": "a", "vector": [1, 2, 3]}, {"vector": [4, 5, 6.5], "id": "b"}),
        ({"a": 1, "b": 2, "s": "t", "c": 3}, {"c": 6.5, "a": 4, "b": 5, "s": None}),
    ],
)
def test_values_find_their_input(path, first, second):
    path.write_text(lines(first, second))
    rows = rows_of(JsonLinesSource(), path, [VECTOR])
    assert values(rows) == [[1, 2, 3], [4, 5, 6.5]]
    assert {row.inputs["x"].dtype for row in rows} == {np.dtype("f4")}


def test_nested_lists_and_several_inputs(path):
    path.write_text(lines({"image": [[1, 2], [3, 4]], "scale": 2}))
    ports = [port("image", (1, 1, 2, 2), layout="NCHW"), port("scale", (-1,), "i8")]
    [row] = rows_of(JsonLinesSource(), path, ports)
    assert row.inputs["image"].tolist() == [[[1, 2], [3, 4]]]
    assert row.inputs["scale"].tolist() == 2


def test_columns_as_said(path):
    path.write_text(lines({"p": [1, 2, 3], "q": [4, 5, 6]}))
    assert values(rows_of(JsonLinesSource(), path, [VECTOR], columns={"features": "q"})) == [
        [4, 5, 6]
    ]


def test_numbers_that_json_lacks(path):
    path.write_text('{"x": [1, NaN, Infinity]}\n')
    [[one, two, three]] = values(rows_of(JsonLinesSource(), path, [VECTOR]))
    assert one == 1
    assert math.isnan(two)
    assert three == math.inf


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "it is no JSON: "),
        ("not json", "it is no JSON: Expecting value at column 1"),
        ("[1, 2, 3]", "it is no JSON object but [1, 2, 3]"),
        ("null", "it is no JSON object but null"),
        ("[" * 100_000, "it is no JSON"),
        ('{"x": ' + "[" * 200 + "]" * 200 + "}", "column 'x'"),
        ('{"y": [1, 2, 3]}', "column 'x' has no value"),
        ('{"x": null}', "column 'x' has no value"),
        ('{"x": "text"}', "column 'x' has \"text\", which is no number"),
        ('{"x": {"a": 1}}', "column 'x' has {\"a\": 1}, which is no number"),
        ('{"x": [1, 2]}', "column 'x' does not fit: input 'x' has shape 2, the model takes 3"),
        ('{"x": []}', "column 'x' does not fit"),
        ('{"x": [1, [2], 3]}', "column 'x' has lists of different lengths"),
        ('{"x": [1, null, 3]}', "column 'x' has values that are not numbers"),
        ('{"x": [1, "2", 3]}', "column 'x' has values that are not numbers"),
        ('{"x": [1, 2, 1e300]}', "some values are too large"),
        ('{"x": [1, 2, ' + "9" * 100 + "]}", "column 'x' has values that are not numbers"),
        ('{"x": [1, 2, ' + "9" * 5000 + "]}", "digits"),
        ('{"x": [1, 2, "\udcff"]}', "can't decode"),
    ],
)
def test_a_line_that_is_not_as_it_should_be(path, line, reason):
    text = f'{{"x": [1, 2, 3]}}\n{line}\n{{"x": [4, 5, 6]}}'
    path.write_bytes(text.encode(errors="surrogateescape"))
    rows = rows_of(JsonLinesSource(), path, [VECTOR])
    assert values(rows) == [[1, 2, 3], None, [4, 5, 6]]
    assert rows[1].identity["row"] == 1
    assert reason in rows[1].bad_because


def test_a_line_longer_than_allowed(path):
    path.write_bytes(b'{"x": [1, 2, 3]}\n{"x": [' + b" " * (17 << 20) + b']}\n{"x": [4, 5, 6]}\n')
    rows = rows_of(JsonLinesSource(), path, [VECTOR])
    assert values(rows) == [[1, 2, 3], None, [4, 5, 6]]
    assert reasons(rows) == ["it is longer than 16,777,216 bytes"]


@pytest.mark.parametrize(
    ("given_values", "type_", "kept"),
    [
        ([1, 2, None], pa.int64(), [1, 2, None]),
        ([1, 2.5], pa.float64(), [1, 2.5]),
        ([True, None], pa.bool_(), [True, None]),
        (["a", "ü"], pa.string(), ["a", "ü"]),
        (["a", 1, None], pa.string(), ["a", "1", None]),
        ([[1], {"a": None}], pa.string(), ["[1]", '{"a": null}']),
        ([2**70], pa.string(), [str(2**70)]),
        ([None], pa.string(), [None]),
    ],
)
def test_what_is_kept_has_one_type(path, given_values, type_, kept):
    path.write_text(lines(*({"x": [1, 2, 3], "k": value} for value in given_values)))
    rows = rows_of(JsonLinesSource(), path, [VECTOR], keep=["k"])
    assert [row.kept["k"] for row in rows] == kept
    assert pa.array([row.kept["k"] for row in rows], type_).to_pylist() == kept
    with reading(JsonLinesSource(), path, [VECTOR], keep=["k"]) as (source, _, context):
        assert source.kept(context) == pa.schema([("k", type_)])


@pytest.mark.parametrize(
    ("first", "then", "is_good"),
    [
        (1, 2.5, False),
        (1, "a", False),
        (1, True, False),
        (1, 2**63, False),
        (1, -(2**63) + 1, True),
        (1.5, 2, True),
        (1.5, "a", False),
        (1.5, 10**400, False),
        (True, 1, False),
        ("a", 1, True),
        ("a", "\ud800", False),
        ("a", math.nan, True),
        (1, math.nan, False),
    ],
)
def test_a_kept_value_of_another_type_later_on(path, first, then, is_good):
    row = {"x": [1, 2, 3]}
    path.write_text(lines(*[{**row, "k": first}] * 200, {**row, "k": then}, row))
    rows = rows_of(JsonLinesSource(), path, [VECTOR], keep=["k"])
    assert rows[-1].kept == {"k": None}
    assert (rows[-2].bad_because is None) == is_good
    if not is_good:
        assert "column 'k', which is kept, has" in rows[-2].bad_because
    with reading(JsonLinesSource(), path, [VECTOR], keep=["k"]) as (source, _, context):
        type_ = source.kept(context).field("k").type
    pa.array([row.kept["k"] for row in rows if row.bad_because is None], type_)


def test_text_for_a_model_of_text(path):
    path.write_text(lines({"t": "one"}, {"t": "x" * 100}, {"t": 3}, {"t": "\ud800"}))
    rows = rows_of(JsonLinesSource(), path, [port(shape=(-1, 1), dtype="U")])
    assert values(rows) == [["one"], ["x" * 100], None, None]


@pytest.mark.parametrize(
    ("objects", "ports", "words"),
    [
        ([{"a": [1], "b": [2]}], [VECTOR], "'a', 'b' could all feed input 'x'"),
        ([{"a": 1, "b": 2}], [VECTOR], "2 columns of numbers"),
        ([{"a": "t"}], [VECTOR], "no column of lists or tensors"),
    ],
)
def test_what_does_not_fit_is_said_at_once(path, objects, ports, words):
    path.write_text(lines(*objects))
    with pytest.raises(InputFileError, match=words):
        rows_of(JsonLinesSource(), path, ports)


def test_rows_without_columns_are_bad_rows(path):
    path.write_text("{}\n" * 3)
    rows = rows_of(JsonLinesSource(), path, [VECTOR])
    assert len(rows) == 3
    assert "its columns are none" in reasons(rows)[0]


def test_files_in_which_nothing_can_be_read(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.jsonl").write_text("\n \n")
    (tmp_path / "c.jsonl").write_text("no json\n\nat all\n")
    (tmp_path / "d.jsonl").symlink_to(tmp_path / "nowhere")
    rows = rows_of(JsonLinesSource(), tmp_path, [VECTOR])
    identities = [(row.identity["path"][-7:], row.identity["row"]) for row in rows]
    assert identities == [("c.jsonl", 0), ("c.jsonl", 1), ("d.jsonl", -1)]
    assert len(reasons(rows)) == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=200)
@given(
    table=st.lists(st.tuples(st.integers(-9, 9), JSON), min_size=1, max_size=30),
    newline=st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\n"]),
    is_ended=st.booleans(),
    is_ascii=st.booleans(),
    begin=st.sampled_from([b"", b"\xef\xbb\xbf", b"  "]),
    step=st.integers(1, 300),
)
def test_fragments_together_hold_every_row_once(
    tmp_path_factory, table, newline, is_ended, is_ascii, begin, step
):
    texts = [json.dumps({"x": x, "other": other}, ensure_ascii=is_ascii) for x, other in table]
    path = tmp_path_factory.mktemp("jsonl") / "data.jsonl"
    text = newline.join(texts) + (newline if is_ended else "")
    path.write_bytes(begin + text.encode(errors="surrogatepass"))
    takes = [port(shape=(-1, 1))]
    fragments = by_fragment(JsonLinesSource(step), path, takes)
    rows = [row for rows in fragments for row in rows]
    assert values(rows) == [[x] for x, _ in table]
    assert [row.identity["row"] for row in rows] == list(range(len(table)))
    if step == 1:
        assert len(fragments) == len(table)
    assert values(rows_of(JsonLinesSource(), path, takes)) == values(rows)
