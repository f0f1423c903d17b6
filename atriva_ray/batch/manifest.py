"""What a job's output folder knows of the job: what was asked, and which fragments are done.

::

    OUTPUT/part-000000.parquet          one file (or a few) per fragment
    OUTPUT/_atriva/job.json             what was asked
    OUTPUT/_atriva/input.parquet        the input's files, as they were
    OUTPUT/_atriva/done/000000.json     written last: this fragment is whole
    OUTPUT/_atriva/bad/000000.jsonl     its rows that could not be used, and why
    OUTPUT/_atriva/quarantine.jsonl     all of those, when the job is done
    OUTPUT/_atriva/report.json          counts and times, when the job is done

Names with an underscore are passed over by whatever reads the folder as one data set.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from atriva_ray.batch.fragments import InputFile
from atriva_ray.batch.locations import write_whole
from atriva_ray.errors import OutputFolderError, ResumeError

__all__ = ["FOLDER", "FragmentDone", "Manifest", "differences"]

FOLDER = "_atriva"
_SHOWN = 3
_PART = re.compile(r"part-\d{6,}\.(parquet|jsonl|rows\.jsonl|.+\.npy)")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")
"""What `write_whole` calls a file before it is whole."""


@dataclass(frozen=True, slots=True)
class FragmentDone:
    """What is known of a fragment that is whole.

    Attributes:
        index: which one.
        rows_in: rows that were read.
        rows_out: rows of the output.
        rows_bad: rows in quarantine.
        files: the output's files.
        digest: of the content, where the input cannot be told by its files; else empty.
        seconds: time per stage.
    """

    index: int
    rows_in: int
    rows_out: int
    rows_bad: int
    files: tuple[str, ...] = ()
    digest: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in words what two descriptions of a job differ in."""
    return [
        f"{key} was {_short(before.get(key))} and is {_short(now.get(key))}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}…"  # noqa: PLR2004 - a line of a terminal


class Manifest:
    """Reads and writes the state of a job's output folder."""

    def __init__(self, filesystem: FileSystem, folder: str) -> None:
        self._filesystem = filesystem
        self._folder = folder
        self._root = f"{folder}/{FOLDER}"
        self._claim: socket.socket | None = None

    def claim(self) -> None:
        """See that no other job of this machine writes to the folder, and keep others from it.

        The claim ends with the process, however that ends. Folders behind URLs cannot be claimed.

        Raises:
            OutputFolderError: another job has it.
        """
        if not isinstance(self._filesystem, LocalFileSystem):
            return
        digest = hashlib.sha256(os.path.realpath(self._folder).encode()).hexdigest()[:32]
        # A name without a file: the kernel takes it back when the process ends.
        self._claim = socket.socket(socket.AF_UNIX)
        try:
            self._claim.bind(f"\0atriva-batch-{digest}")
        except OSError as error:
            self.release()
            if error.errno != errno.EADDRINUSE:
                raise
            raise OutputFolderError(
                self._folder, "another job is writing to it; let that end, or choose another folder"
            ) from None

    def release(self) -> None:
        """Let other jobs have the folder; safe to call again."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def begin(
        self, job: Mapping[str, Any], files: Sequence[InputFile], *, is_resume: bool
    ) -> dict[int, FragmentDone]:
        """Make the folder this job's, or see that it is.

        Returns:
            The fragments that are done already.

        Raises:
            OutputFolderError: something is there, and it is not to be gone on with.
            ResumeError: what is there is of another job; it says what differs.
        """
        before = self._read_job()
        if before is None:
            self._check_empty()
            self._create(job, files)
            return {}
        if not is_resume:
            done = len(self.done())
            raise OutputFolderError(
                self._folder,
                f"it holds a job of which {done:,} fragments are done; "
                "pass --resume (resume=True) to go on with it, or choose another folder",
            )
        changed = differences(before, dict(job))
        changed += _file_differences(self._read_files(), files)
        if changed:
            raise ResumeError(self._folder, changed)
        return self.done()

    def done(self) -> dict[int, FragmentDone]:
        """Return the fragments that are whole, by index.

        A record that is torn does not count, nor one whose output somebody took away.
        """
        selector = FileSelector(self._folder, allow_not_found=True)
        there = {info.base_name for info in self._filesystem.get_file_info(selector)}
        selector = FileSelector(f"{self._root}/done", allow_not_found=True)
        found = {}
        for info in self._filesystem.get_file_info(selector):
            if info.type == FileType.File and info.extension == "json":
                record = _parsed(self._read(info.path))
                is_ours = record is not None and info.base_name == _record_name(record.index)
                if record is not None and is_ours and there.issuperset(record.files):
                    found[record.index] = record
        return found

    def finish_fragment(self, done: FragmentDone, bad: Sequence[Mapping[str, Any]]) -> None:
        """Say that a fragment is whole; its output must be in place already."""
        if bad:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in bad)
            self._write(f"bad/{done.index:06d}.jsonl", lines.encode())
        self._write(f"done/{_record_name(done.index)}", json.dumps(asdict(done)).encode())

    def finish_job(self, report: Mapping[str, Any], done: Mapping[int, FragmentDone]) -> None:
        """Write the report, and one quarantine file with all bad rows in order."""
        with write_whole(self._filesystem, f"{self._root}/quarantine.jsonl") as stream:
            for index in sorted(done):
                if done[index].rows_bad:
                    stream.write(self._read(f"{self._root}/bad/{index:06d}.jsonl"))
        self._write("report.json", json.dumps(report, indent=2).encode())

    def quarantined(self) -> Iterator[dict[str, Any]]:
        """Yield the rows that could not be used, each with its reason."""
        for index, done in sorted(self.done().items()):
            if done.rows_bad:
                for line in self._read(f"{self._root}/bad/{index:06d}.jsonl").splitlines():
                    yield json.loads(line)

    def clear_unfinished(self, done: Mapping[int, FragmentDone]) -> None:
        """Remove what killed programs left: temporary files, and output that is not whole."""
        whole = {name for each in done.values() for name in each.files}
        for folder in (self._folder, self._root, f"{self._root}/done", f"{self._root}/bad"):
            is_ours = folder != self._folder
            for info in self._filesystem.get_file_info(FileSelector(folder, allow_not_found=True)):
                name = info.base_name
                is_temporary = _TEMPORARY.fullmatch(name) and (is_ours or name[:6] == ".part-")
                is_part = not is_ours and _PART.fullmatch(name) and name not in whole
                if info.type == FileType.File and (is_temporary or is_part):
                    self._filesystem.delete_file(info.path)

    def _create(self, job: Mapping[str, Any], files: Sequence[InputFile]) -> None:
        for folder in ("done", "bad"):
            self._filesystem.create_dir(f"{self._root}/{folder}", recursive=True)
        table = pa.table(
            {
                "path": pa.array([file.path for file in files], pa.string()),
                "size_bytes": pa.array([file.size_bytes for file in files], pa.int64()),
                "mtime_ns": pa.array([file.mtime_ns for file in files], pa.int64()),
            }
        )
        with write_whole(self._filesystem, f"{self._root}/input.parquet") as stream:
            pq.write_table(table, stream)
        self._write("job.json", json.dumps(job, indent=2).encode())

    def _check_empty(self) -> None:
        info = self._filesystem.get_file_info(self._folder)
        if info.type == FileType.NotFound:
            return
        if info.type != FileType.Directory:
            raise OutputFolderError(self._folder, "it is a file; name a folder")
        entries = self._filesystem.get_file_info(FileSelector(self._folder))
        others = [entry.base_name for entry in entries if entry.base_name != FOLDER]
        if others:
            raise OutputFolderError(
                self._folder,
                f"it holds other things ({', '.join(sorted(others)[:_SHOWN])}, …); "
                "choose an empty or a new folder",
            )

    def _read_job(self) -> dict[str, Any] | None:
        path = f"{self._root}/job.json"
        if self._filesystem.get_file_info(path).type != FileType.File:
            return None
        try:
            job: dict[str, Any] = json.loads(self._read(path))
        except ValueError:  # torn, and so nothing came after it
            return None
        return job

    def _read_files(self) -> list[InputFile]:
        with self._filesystem.open_input_file(f"{self._root}/input.parquet") as file:
            columns = pq.read_table(file).to_pydict()
        return [InputFile(*values) for values in zip(*columns.values(), strict=True)]

    def _read(self, path: str) -> bytes:
        with self._filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())

    def _write(self, name: str, content: bytes) -> None:
        with write_whole(self._filesystem, f"{self._root}/{name}") as stream:
            stream.write(content)


def _record_name(index: int) -> str:
    return f"{index:06d}.json"


def _parsed(record: bytes) -> FragmentDone | None:
    try:
        values = json.loads(record)
        return FragmentDone(**{**values, "files": tuple(values["files"])})
    except (ValueError, TypeError, KeyError):
        return None


def _file_differences(before: Sequence[InputFile], now: Sequence[InputFile]) -> list[str]:
    old = {file.path: file for file in before}
    new = {file.path: file for file in now}
    groups = {
        "is new": [path for path in new if path not in old],
        "is gone": [path for path in old if path not in new],
        "has changed": [path for path in new if path in old and new[path] != old[path]],
    }
    return [_told(paths, what) for what, paths in groups.items() if paths]


def _told(paths: Sequence[str], what: str) -> str:
    if len(paths) == 1:
        return f"{paths[0]} {what}"
    verb = {"is new": "are new", "is gone": "are gone", "has changed": "have changed"}[what]
    shown = ", ".join(sorted(paths)[:_SHOWN])
    more = ", …" if len(paths) > _SHOWN else ""
    return f"{len(paths):,} input files {verb} ({shown}{more})"
