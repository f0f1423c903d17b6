"""CSV files as rows."""

from __future__ import annotations

import csv
import io
import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_inference import InputNameError
from atriva_ray.batch.locations import open_location
from atriva_ray.batch.sources.csv_files import CsvSource
from atriva_ray.errors import InputFileError
from tests.unit.batch.reading import VECTOR, by_fragment, port, reading, reasons, rows_of, values


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.csv"


def test_columns_of_numbers_make_a_vector(path):
    path.write_text("id,a,b,c,name\n7,1,2.5,-3e1,one\n8,4,5,6,two\n")
    rows = rows_of(CsvSource(), path, [VECTOR], keep=["id", "name"])
    assert values(rows) == [[1, 2.5, -30], [4, 5, 6]]
    assert rows[0].inputs["x"].dtype == np.float32
    assert [row.identity for row in rows] == [{"path": str(path), "row": n} for n in range(2)]
    assert [dict(row.kept) for row in rows] == [
        {"id": "7", "name": "one"},
        {"id": "8", "name": "two"},
    ]


def test_what_is_kept_is_text(path):
    path.write_text("x,id\n1,007\n")
    with reading(CsvSource(), path, [port(shape=(-1, 1))], keep=["id"]) as (source, _, context):
        assert source.kept(context) == pa.schema([("id", pa.string())])


def test_columns_by_name_and_as_said(path):
    path.write_text("a,b\n1,2\n3,4\n")
    two = [port("a", (-1, 1)), port("b", (-1, 1), "i4")]
    rows = rows_of(CsvSource(), path, two)
    assert (values(rows, "a"), values(rows, "b")) == ([[1], [3]], [[2], [4]])
    rows = rows_of(CsvSource(), path, two, columns={"a": "b", "b": "a"})
    assert (values(rows, "a"), values(rows, "b")) == ([[2], [4]], [[1], [3]])


def test_text_for_a_model_of_text(path):
    path.write_text('id,review\n1,"good, really"\n2,"so\nso"\n')
    rows = rows_of(CsvSource(), path, [port(shape=(-1,), dtype="U")])
    assert values(rows) == ["good, really", "so\nso"]
    assert len({row.inputs["x"].dtype for row in rows}) == 1


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf", b"\n\r\n"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_ways_to_write_the_same(path, begin, newline):
    lines = [b'a,"b ""x""",c', b'1,"2",3', b"", b"4,5, 6 "]
    path.write_bytes(begin + newline.join(lines))
    rows = rows_of(CsvSource(), path, [VECTOR])
    assert values(rows) == [[1, 2, 3], [4, 5, 6]]
    assert [row.identity["row"] for row in rows] == [0, 1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,2", "it has 2 fields, the header has 3"),
        ("1,2,3,4", "it has 4 fields, the header has 3"),
        ("1,,3", "column 'b' has no value"),
        ("1,x,3", "column 'b' has 'x', which is no number"),
        ("1,1_000,3", "column 'b' has '1_000', which is no number"),
        ("1,0x10,3", "which is no number"),
        ("1,2,1e400", None),
        ("1,2,nan", None),
        ("1,2," + "9" * 400, None),
        ("1,2,1e300", "does not fit: input 'x' is float64"),
        ("1,2,3\r4", "new-line character"),
        ("1,2,\udcff", "can't decode byte 0xff"),
    ],
)
def test_a_row_that_is_not_as_it_should_be(path, line, reason):
    text = f"a,b,c\n1,2,3\n{line}\n4,5,6\n"
    path.write_bytes(text.encode(errors="surrogateescape"))
    rows = rows_of(CsvSource(), path, [VECTOR])
    assert [row.identity["row"] for row in rows] == [0, 1, 2]
    assert values(rows)[::2] == [[1, 2, 3], [4, 5, 6]]
    if reason is None:
        assert reasons(rows) == []
    else:
        assert reason in rows[1].bad_because


def test_a_quote_that_never_ends_takes_the_rest_with_it(path):
    path.write_text("a,b,c\n" + "1,2,3\n" * 5 + '4,5,"6\n' + "7,8,9\n" * 5)
    rows = rows_of(CsvSource(), path, [VECTOR])
    assert values(rows) == [[1, 2, 3]] * 5 + [None]
    assert "column 'c' has '6\\n7,8,9" in rows[-1].bad_because


def test_whole_numbers_for_a_model_that_takes_them(path):
    path.write_text("x\n12345678901234567\n2.0\n2.5\n-1\n300\n")
    rows = rows_of(CsvSource(), path, [port(shape=(-1, 1), dtype="i8")])
    assert values(rows) == [[12345678901234567], [2], None, [-1], [300]]
    rows = rows_of(CsvSource(), path, [port(shape=(-1, 1), dtype="u1")])
    assert values(rows) == [None, [2], None, None, None]


def test_a_number_column_with_some_bad_values_is_still_one(path):
    path.write_text("a,b,c\n" + "n/a,1,2\n" + "1,2,3\n" * 5)
    assert values(rows_of(CsvSource(), path, [VECTOR]))[:2] == [None, [1, 2, 3]]


@pytest.mark.parametrize(
    ("text", "ports", "options", "error", "words"),
    [
        ("a,b\n1,2\n", [VECTOR], {}, InputFileError, "2 columns of numbers .'a', 'b'. do not fit"),
        ("a,b\nx,y\n", [VECTOR], {}, InputFileError, "no column of lists or tensors for input 'x'"),
        ("a,b,c\n1,2,3\n", [VECTOR], {"keep": ["d"]}, InputFileError, "no column 'd'.* 'a', 'b'"),
        ("a\n1\n", [VECTOR], {"columns": {"x": "d"}}, InputFileError, "no column 'd'"),
        ("a\n1\n", [VECTOR], {"columns": {"y": "a"}}, InputNameError, "unknown .* 'y'"),
        ("a\n1\n", [port("a"), port("b")], {}, InputFileError, "name of input 'b'"),
        ("s,t\nq,r\n", [port(dtype="U")], {}, InputFileError, "'s', 't' could all feed"),
        ("s\n1\n", [port(dtype="U")], {}, InputFileError, "no column of text"),
    ],
)
def test_what_does_not_fit_is_said_at_once(path, text, ports, options, error, words):
    path.write_text(text)
    with pytest.raises(error, match=words):
        rows_of(CsvSource(), path, ports, **options)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
        (b"\xff\xfea\0b\0\n", "can't decode"),
        (b"a,b,a\n1,2,3\n", "two columns have the name 'a'"),
    ],
)
def test_a_file_without_a_header_is_one_bad_row(tmp_path, content, words):
    (tmp_path / "a.csv").write_bytes(content)
    (tmp_path / "b.csv").write_text("a,b,c\n1,2,3\n")
    bad, good = rows_of(CsvSource(), tmp_path, [VECTOR])
    assert bad.identity == {"path": f"{tmp_path}/a.csv", "row": -1}
    assert words in bad.bad_because
    assert good.inputs["x"].tolist() == [1, 2, 3]
    [bad] = rows_of(CsvSource(), tmp_path / "a.csv", [VECTOR])
    assert words in bad.bad_because


def test_files_may_have_their_columns_in_another_order_or_lack_one(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,c\n1,2,3\n")
    (tmp_path / "b.csv").write_text("c,id,b,a\n3,9,2,1\n")
    (tmp_path / "c.csv").write_text("a,b\n1,2\n")
    (tmp_path / "d.csv").write_text("a,b,c\n")
    rows = rows_of(CsvSource(), tmp_path, [VECTOR])
    assert values(rows) == [[1, 2, 3], [1, 2, 3], None]
    assert reasons(rows) == ["column 'c' has no value"]


CELLS = st.text(st.sampled_from("ab1,\"\n\r é'")) | st.integers().map(str)


@settings(deadline=None, max_examples=200)
@given(
    table=st.lists(st.tuples(st.integers(-9, 9), CELLS), min_size=1, max_size=30),
    newline=st.sampled_from(["\n", "\r\n"]),
    blanks=st.sets(st.integers(0, 40)),
    is_ended=st.booleans(),
    begin=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    step=st.integers(1, 200),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
)
def test_fragments_together_hold_every_row_once(
    tmp_path_factory, table, newline, blanks, is_ended, begin, step, quoting
):
    if quoting == csv.QUOTE_MINIMAL:  # for which the library forgets this one
        table = [(number, text.replace("\r", "")) for number, text in table]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator=newline, quoting=quoting)
    writer.writerow(["x", "te,xt"])
    for number, row in enumerate(table):
        writer.writerow(row)
        if number in blanks:
            stream.write(newline)
    text = stream.getvalue()
    if not is_ended:
        text = text.removesuffix(newline)
    path = tmp_path_factory.mktemp("csv") / "data.csv"
    path.write_bytes(begin + text.encode())
    options = {"columns": {"x": "x"}, "keep": ["te,xt"]}
    fragments = by_fragment(CsvSource(step), path, [port(shape=(-1, 1))], **options)
    rows = [row for rows in fragments for row in rows]
    assert [(row.inputs["x"].item(), row.kept["te,xt"]) for row in rows] == table
    assert [row.identity["row"] for row in rows] == list(range(len(table)))
    if step > 200 * len(table):
        assert len(fragments) == 1
    if step == 1:
        assert len(fragments) == len(table)


@pytest.mark.parametrize("change", ["vanish", "shorten", "spoil"])
def test_a_file_that_changed_since_it_was_planned(path, change):
    content = b"a,b,c\n" + b"1,2,3\n" * 10
    path.write_bytes(content)
    changes = {
        "vanish": path.unlink,
        "shorten": lambda: path.write_bytes(content[:30]),
        "spoil": lambda: path.write_bytes(b"?" * len(content)),
    }
    rows = rows_of(CsvSource(20), path, [VECTOR], twist=changes[change])
    assert len(rows) == 10
    assert [row.identity["row"] for row in rows] == list(range(10))
    good = {"vanish": 0, "shorten": 4, "spoil": 0}[change]
    assert [row.bad_because is None for row in rows] == [True] * good + [False] * (10 - good)


def test_files_elsewhere():
    filesystem, root = open_location(f"memory://c{uuid.uuid4().hex}")
    filesystem.create_dir(root)
    with filesystem.open_output_stream(f"{root}/a.csv") as stream:
        stream.write(b"a,b,c\n" + b"1,2,3\n" * 100)
    fragments = by_fragment(CsvSource(60), f"memory://{root}", [VECTOR])
    assert [len(rows) for rows in fragments] == [10] * 10
    assert values(fragments[3]) == [[1, 2, 3]] * 10
    filesystem.delete_dir(root)


def test_a_large_field_is_no_error(path):
    path.write_text("x,t\n1," + "a" * 300_000 + "\n")
    [row] = rows_of(CsvSource(), path, [port(shape=(-1, 1))], keep=["t"])
    assert len(row.kept["t"]) == 300_000
