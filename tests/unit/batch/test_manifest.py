"""What a job's output folder knows, however the programs before this one have ended."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FileSelector, FileType, FSSpecHandler, LocalFileSystem, PyFileSystem

from atriva_ray.batch.fragments import InputFile
from atriva_ray.batch.locations import write_whole
from atriva_ray.batch.manifest import FOLDER, FragmentDone, Manifest, differences
from atriva_ray.batch.sinks import OutputFormat, open_sink
from atriva_ray.errors import OutputFolderError, ResumeError

JOB = {
    "format_version": 1,
    "model": "f00d",
    "preprocessing": {"mean": [0.5, 0.25], "std": None},
    "input_files": 3,
    "columns": {},
    "top_k": [5, None, "cafe"],
}
FILES = [InputFile(f"/data/{name}.png", 10, 1_700_000_000_123_456_789) for name in "abc"]


class Output:
    """An output folder, on this machine or in memory."""

    def __init__(self, filesystem, path):
        self.filesystem = filesystem
        self.path = path

    @property
    def manifest(self):
        """As a program sees it that has just begun."""
        return Manifest(self.filesystem, self.path)

    def begin(self, job=JOB, files=FILES, *, is_resume=False):
        return self.manifest.begin(job, files, is_resume=is_resume)

    def resume(self, job=JOB, files=FILES):
        return self.begin(job, files, is_resume=True)

    def put(self, name, content=b""):
        path = f"{self.path}/{name}"
        self.filesystem.create_dir(path.rpartition("/")[0])
        with self.filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(content)

    def read(self, name):
        with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
            return stream.read()

    def files(self):
        selector = FileSelector(self.path, recursive=True, allow_not_found=True)
        return {
            info.path.partition(f"{self.path.strip('/')}/")[2]
            for info in self.filesystem.get_file_info(selector)
            if info.type == FileType.File
        }


@pytest.fixture(params=["local", "memory"])
def output(request, tmp_path):
    if request.param == "local":
        return Output(LocalFileSystem(), str(tmp_path / "out"))
    memory = fsspec.filesystem("memory")
    return Output(PyFileSystem(FSSpecHandler(memory)), f"/{uuid.uuid4().hex}/out")


def done_of(index, bad=0, **changes):
    done = FragmentDone(index, 10, 10 - bad, bad, (), "", {"read": 0.5})
    return replace(done, **changes)


def bad_rows(index, count):
    return [{"path": f"{index}.png", "row": row, "reason": "no picture"} for row in range(count)]


# -- beginning -------------------------------------------------------------------------------


def test_a_new_folder_becomes_the_jobs(output):
    assert output.begin() == {}
    assert output.files() == {f"{FOLDER}/job.json", f"{FOLDER}/input.parquet"}
    assert json.loads(output.read(f"{FOLDER}/job.json")) == JOB
    table = pq.read_table(pa.BufferReader(output.read(f"{FOLDER}/input.parquet")))
    assert table["path"].to_pylist() == ["/data/a.png", "/data/b.png", "/data/c.png"]


def test_an_empty_folder_becomes_the_jobs(output):
    output.filesystem.create_dir(output.path)
    assert output.begin() == {}
    assert output.resume() == {}


def test_resuming_what_was_never_begun_begins_it(output):
    assert output.resume() == {}
    assert output.resume() == {}


def test_a_folder_that_was_claimed_by_half_becomes_the_jobs(output):
    output.put(f"{FOLDER}/input.parquet", b"torn")
    output.put(f"{FOLDER}/.job.json.0123456789abcdef0123456789abcdef", b"{")
    assert output.begin() == {}
    assert output.resume() == {}


def test_what_is_left_of_a_claim_is_claimed_again(output):
    output.begin()
    output.put(f"{FOLDER}/job.json", b"")  # the machine went down before it was on the disk
    assert output.begin() == {}
    assert json.loads(output.read(f"{FOLDER}/job.json")) == JOB


@pytest.mark.parametrize("is_resume", [False, True])
def test_a_folder_with_other_things_is_refused_and_left_as_it_is(output, is_resume):
    for name in ("notes.txt", "part-000000.parquet", "zebra.txt", "a/b.txt", "quagga.txt"):
        output.put(name)
    before = output.files()
    with pytest.raises(OutputFolderError, match=r"\(a, notes.txt, part-000000.parquet, …\)"):
        output.begin(is_resume=is_resume)
    assert output.files() == before


def test_a_file_is_no_folder(output):
    output.put("x")
    with pytest.raises(OutputFolderError, match="it is a file"):
        Manifest(output.filesystem, f"{output.path}/x").begin(JOB, FILES, is_resume=False)


def test_a_folder_of_a_job_is_refused_unless_it_is_to_be_resumed(output):
    output.begin()
    for index in range(3):
        output.manifest.finish_fragment(done_of(index), [])
    before = output.files()
    with pytest.raises(OutputFolderError, match=r"3 fragments are done; pass --resume"):
        output.begin()
    assert output.files() == before


def test_a_job_without_files_can_be_resumed(output):
    output.begin(files=[])
    assert output.resume(files=[]) == {}


# -- resuming --------------------------------------------------------------------------------


def test_what_is_done_is_known_when_the_job_is_resumed(output):
    output.begin()
    records = {
        7: done_of(7, bad=2),
        0: done_of(0, files=(), digest="cafe", seconds={}),
        1_000_000: done_of(1_000_000, files=("part-1000000.x.npy", "part-1000000.rows.jsonl")),
    }
    for record in records.values():
        for name in record.files:
            with write_whole(output.filesystem, f"{output.path}/{name}") as stream:
                stream.write(b"")
        output.manifest.finish_fragment(record, bad_rows(record.index, record.rows_bad))
    assert output.resume() == records
    assert output.manifest.done() == records


def test_what_was_done_and_then_taken_away_is_not_done(output):
    output.begin()
    output.manifest.finish_fragment(done_of(0, files=("part-000000.parquet",)), [])
    assert output.resume() == {}


def test_the_order_of_files_does_not_matter(output):
    output.begin()
    assert output.resume(files=FILES[::-1]) == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "beef"}, ['model was "f00d" and is "beef"']),
        (
            {"preprocessing": {"mean": [0.5, 0.5], "std": None}},
            [
                'preprocessing was {"mean": [0.5, 0.25], "std": null} '
                'and is {"mean": [0.5, 0.5], "std": null}'
            ],
        ),
        (
            {"top_k": None, "columns": {"x": "y"}},
            ['columns was {} and is {"x": "y"}', 'top_k was [5, null, "cafe"] and is null'],
        ),
        ({"newer": 1}, ["newer was null and is 1"]),
    ],
)
def test_another_job_is_refused_and_told_apart(output, change, told):
    output.begin()
    output.manifest.finish_fragment(done_of(0), [])
    before = output.files()
    with pytest.raises(ResumeError) as caught:
        output.resume({**JOB, **change})
    assert list(caught.value.differences) == told
    assert "; ".join(told) in str(caught.value)
    assert output.files() == before


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([*FILES, InputFile("/data/d.png", 1)], ["/data/d.png is new"]),
        (FILES[1:], ["/data/a.png is gone"]),
        ([], ["3 input files are gone (/data/a.png, /data/b.png, /data/c.png)"]),
        ([*FILES[:2], replace(FILES[2], size_bytes=11)], ["/data/c.png has changed"]),
        ([*FILES[:2], replace(FILES[2], mtime_ns=1)], ["/data/c.png has changed"]),
        (
            [InputFile(f"/data/{name}.png", 1) for name in "dcgfe"],
            [
                "4 input files are new (/data/d.png, /data/e.png, /data/f.png, …)",
                "2 input files are gone (/data/a.png, /data/b.png)",
                "/data/c.png has changed",
            ],
        ),
    ],
)
def test_other_files_are_refused_and_named(output, files, told):
    output.begin()
    with pytest.raises(ResumeError) as caught:
        output.resume(files=files)
    assert list(caught.value.differences) == told


def test_long_differences_are_cut():
    (told,) = differences({"x": "a" * 1_000}, {"x": "b" * 1_000})
    assert len(told) < 200


def test_equal_jobs_have_no_differences():
    assert differences(JOB, json.loads(json.dumps(JOB))) == []


@pytest.mark.parametrize(
    "content",
    [b"", b'{"index": 1', b"[]", b"1", b"null", b"{}", b'{"index": 1}', b"\xff\xfe", b"\0" * 99],
)
def test_a_torn_record_is_none(output, content):
    output.begin()
    output.manifest.finish_fragment(done_of(0), [])
    output.put(f"{FOLDER}/done/000001.json", content)
    assert output.resume() == {0: done_of(0)}


@pytest.mark.parametrize(
    "name",
    [
        *(".DS_Store", "Thumbs.db", "000001.json~", "000001.json.bak", "copy of 000001.json"),
        *("0.json", "report.json", ".000001.json.0123456789abcdef0123456789abcdef"),
        *("000001/000001.json", "000002.json"),
    ],
)
def test_other_files_among_the_records_are_none(output, name):
    output.begin()
    output.manifest.finish_fragment(done_of(0), [])
    record = output.read(f"{FOLDER}/done/000000.json").replace(b'"index": 0', b'"index": 1')
    for content in (record, b"\x00\x01"):
        output.put(f"{FOLDER}/done/{name}", content)
        assert output.resume() == {0: done_of(0)}


# -- what killed programs leave --------------------------------------------------------------

TEMPORARY = "0123456789abcdef0123456789abcdef"


def write_part(output, index, values, format_=OutputFormat.PARQUET):
    table = pa.table({"path": ["x"] * len(values), "y": pa.array(values, pa.float32())})
    with open_sink(format_, output.filesystem, output.path, index, table.schema) as sink:
        sink.write(table)
    return sink.names


def test_a_part_without_a_record_is_done_again_without_duplicates(output):
    output.begin()
    write_part(output, 0, [0, 1])
    output.manifest.finish_fragment(done_of(0, files=("part-000000.parquet",)), [])
    write_part(output, 1, [2, 3])  # killed here
    done = output.resume()
    assert set(done) == {0}
    output.manifest.clear_unfinished(done)
    assert "part-000001.parquet" not in output.files()
    write_part(output, 1, [2, 3])
    output.manifest.finish_fragment(done_of(1), [])
    read = [
        pq.read_table(pa.BufferReader(output.read(name)))["y"].to_pylist()
        for name in sorted(output.files())
        if name.startswith("part-")
    ]
    assert read == [[0, 1], [2, 3]]
    assert set(output.resume()) == {0, 1}


def test_bad_rows_without_a_record_are_forgotten_when_they_were_not_bad_again(output):
    output.begin()
    output.manifest.finish_fragment(done_of(0, bad=2), bad_rows(0, 2))
    output.filesystem.delete_file(f"{output.path}/{FOLDER}/done/000000.json")  # as if killed before
    assert output.resume() == {}
    output.manifest.finish_fragment(done_of(0, files=("part-000000.parquet",)), [])
    assert list(output.manifest.quarantined()) == []
    output.manifest.finish_job({}, output.manifest.done())
    assert output.read(f"{FOLDER}/quarantine.jsonl") == b""


def test_only_what_is_ours_and_not_whole_is_removed(output):
    output.begin()
    ours = [
        "part-000001.parquet",
        "part-000002.jsonl",
        "part-000003.y.npy",
        "part-000003.rows.jsonl",
        "part-1000000.parquet",
        f".part-000004.parquet.{TEMPORARY}",
        f".part-000004.a.b-c.npy.{TEMPORARY}",
        f"{FOLDER}/.report.json.{TEMPORARY}",
        f"{FOLDER}/done/.000004.json.{TEMPORARY}",
        f"{FOLDER}/bad/.000004.jsonl.{TEMPORARY}",
    ]
    theirs = [
        "part-list.txt",
        "part-000001.parquet.bak",
        "part-1.parquet",
        "part-000005",
        "party-000001.parquet",
        "notes.txt",
        ".part-time.txt",
        ".part-000004.parquet.mine",
        f".notes.{TEMPORARY}",
        "part-000006.parquet/inside.txt",
        "below/part-000001.parquet",
        f"{FOLDER}/notes.txt",
        f"{FOLDER}/done/notes.txt",
    ]
    names = write_part(output, 0, [0], OutputFormat.NPY)
    output.manifest.finish_fragment(done_of(0, files=names, rows_bad=1), bad_rows(0, 1))
    before = output.files()
    for name in (*ours, *theirs):
        output.put(name)
    output.manifest.clear_unfinished(output.resume())
    assert output.files() == {*before, *theirs}


def test_a_file_that_is_being_written_is_called_as_is_removed(output):
    output.begin()

    def write_and_be_killed(name):
        writing = write_whole(output.filesystem, f"{output.path}/{name}")
        writing.__enter__().write(b"half")
        return writing

    alive = [
        write_and_be_killed(name)
        for name in ("part-000000.parquet", f"part-000001.{'x' * 200}.npy", f"{FOLDER}/job.json")
    ]
    assert len(output.files()) == 5
    output.manifest.clear_unfinished({})
    assert output.files() == {f"{FOLDER}/job.json", f"{FOLDER}/input.parquet"}
    for writing in alive:
        assert not writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)


# -- bad rows and the end --------------------------------------------------------------------


def test_bad_rows_come_in_the_order_of_the_input(output):
    output.begin()
    for index, bad in ((10, 2), (2, 1), (7, 0), (0, 3), (1_000_000, 1), (999_999, 1)):
        output.manifest.finish_fragment(done_of(index, bad=bad), bad_rows(index, bad))
    expected = [
        *(row for index, bad in ((0, 3), (2, 1), (10, 2)) for row in bad_rows(index, bad)),
        *bad_rows(999_999, 1),
        *bad_rows(1_000_000, 1),
    ]
    assert list(output.manifest.quarantined()) == expected
    output.manifest.finish_job({"rows_in": 60}, output.manifest.done())
    lines = output.read(f"{FOLDER}/quarantine.jsonl").decode().split("\n")
    assert [json.loads(line) for line in lines[:-1]] == expected
    assert lines[-1] == ""
    assert json.loads(output.read(f"{FOLDER}/report.json")) == {"rows_in": 60}


def test_reasons_may_say_anything(output):
    output.begin()
    rows = [
        {"path": "größer 犬.png", "reason": 'a "quote"\nand a line \r\n \u2028 \x85 \x00 more'},
        {"path": "", "row": -1, "reason": ""},
    ]
    output.manifest.finish_fragment(done_of(0, bad=2), rows)
    assert list(output.manifest.quarantined()) == rows


def test_a_finished_job_can_be_resumed_and_has_nothing_to_do(output):
    output.begin()
    output.manifest.finish_fragment(done_of(0), [])
    output.manifest.finish_job({}, output.manifest.done())
    assert output.resume() == {0: done_of(0)}
    output.manifest.clear_unfinished(output.resume())
    assert f"{FOLDER}/quarantine.jsonl" in output.files()


def test_a_record_is_written_after_everything_else(output):
    """Whoever sees the record must find the bad rows as well."""
    output.begin()
    written = []

    class Watching(Manifest):
        def _write(self, name, content):
            written.append(name)
            super()._write(name, content)

    Watching(output.filesystem, output.path).finish_fragment(done_of(3, bad=1), bad_rows(3, 1))
    assert written == ["bad/000003.jsonl", "done/000003.json"]
