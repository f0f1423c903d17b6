"""From paths, URLs and globs to files; and files that are whole or not there."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow.fs import FileSelector, FileType, LocalFileSystem, SubTreeFileSystem

from atriva_ray.batch.locations import list_files, open_location, write_whole
from atriva_ray.errors import InputFileError

TREE = [
    "a.jpg",
    "b.png",
    "B.jpg",
    "ä.jpg",
    "with space.jpg",
    "[1].jpg",
    "1.jpg",
    ".hidden.jpg",
    "_part.jpg",
    "one/c.jpg",
    "one/two/d.jpg",
    "one/two/e.txt",
    "two/f.jpg",
    ".git/g.jpg",
    "_temporary/h.jpg",
    "_temporary/deep/i.jpg",
]


@pytest.fixture
def tree(tmp_path):
    for name in TREE:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.fixture
def remote_tree():
    """The same files in a filesystem that Arrow does not have."""
    filesystem, root = open_location(f"memory://t{uuid.uuid4().hex}")
    for name in TREE:
        path = f"{root}/{name}"
        filesystem.create_dir(path.rpartition("/")[0])
        with filesystem.open_output_stream(path) as stream:
            stream.write(name.encode())
    yield f"memory://{root.lstrip('/')}"
    filesystem.delete_dir(root)


def found(path, root):
    filesystem, files = list_files(str(path))
    assert files == sorted(files)
    for file in files:
        with filesystem.open_input_stream(file.path) as stream:
            assert len(stream.read()) == file.size_bytes
    prefix = root.removeprefix("memory://").strip("/") + "/"
    return {file.path.lstrip("/").removeprefix(prefix) for file in files}


VISIBLE = {name for name in TREE if not any(part[0] in "._" for part in name.split("/"))}
FLAT = {name for name in VISIBLE if "/" not in name}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", VISIBLE),
        ("/", VISIBLE),
        ("one", {"one/c.jpg", "one/two/d.jpg", "one/two/e.txt"}),
        ("a.jpg", {"a.jpg"}),
        (".hidden.jpg", {".hidden.jpg"}),
        ("_temporary", {"_temporary/h.jpg", "_temporary/deep/i.jpg"}),
        ("*", FLAT),
        ("*.jpg", FLAT - {"b.png"}),
        ("*/*.jpg", {"one/c.jpg", "two/f.jpg"}),
        ("*/two/*", {"one/two/d.jpg", "one/two/e.txt"}),
        ("*/c.jpg", {"one/c.jpg"}),
        ("**", VISIBLE),
        ("**/*.jpg", {name for name in VISIBLE if name.endswith(".jpg")}),
        ("**/two/*.jpg", {"one/two/d.jpg", "two/f.jpg"}),
        ("one/**", {"one/c.jpg", "one/two/d.jpg", "one/two/e.txt"}),
        ("one/**/d.jpg", {"one/two/d.jpg"}),
        ("one/**/**/*.jpg", {"one/c.jpg", "one/two/d.jpg"}),
        ("[ab].*", {"a.jpg", "b.png"}),
        ("[!a].*", {"B.jpg", "b.png", "ä.jpg", "1.jpg"}),
        ("[1].jpg", {"[1].jpg"}),
        ("[[]1].jp*", {"[1].jpg"}),
        (".h*", {".hidden.jpg"}),
        ("_*", {"_part.jpg"}),
        ("_*/*", {"_temporary/h.jpg"}),
        ("**/_temporary/*", {"_temporary/h.jpg"}),
        ("**/.g*/*", {".git/g.jpg"}),
        ("o*e/c*", {"one/c.jpg"}),
        ("with space.jpg", {"with space.jpg"}),
        ("w* *.jpg", {"with space.jpg"}),
    ],
)
def test_what_a_path_means(tree, remote_tree, pattern, expected):
    assert found(f"{tree}/{pattern}", str(tree)) == expected
    if pattern != "/":
        assert found(f"{remote_tree}/{pattern}".rstrip("/"), remote_tree) == expected


def test_a_question_mark_is_one_letter_on_this_machine(tree):
    assert found(tree / "?.jpg", str(tree)) == {"a.jpg", "B.jpg", "ä.jpg", "1.jpg"}


def test_files_come_in_the_order_of_their_bytes(tree):
    _, files = list_files(str(tree))
    paths = [file.path.encode() for file in files]
    assert paths == sorted(paths)


def test_sizes_and_times_are_noted(tree):
    _, [file] = list_files(str(tree / "a.jpg"))
    status = (tree / "a.jpg").stat()
    assert (file.size_bytes, file.mtime_ns) == (5, status.st_mtime_ns)
    _, files = list_files(str(tree))
    assert file in files


def test_a_relative_path(tree, monkeypatch):
    monkeypatch.chdir(tree / "one")
    filesystem, [file] = list_files("c.jpg")
    assert isinstance(filesystem, LocalFileSystem)
    assert file.path == str(tree / "one" / "c.jpg")
    assert found("../two", str(tree / "one" / "../two")) == {"f.jpg"}


def test_a_folder_above_may_read_like_a_glob(tmp_path, monkeypatch):
    folder = tmp_path / "x[1]*"
    folder.mkdir()
    (folder / "a.jpg").write_text("a")
    assert found(folder / "*.jpg", str(folder)) == {"a.jpg"}
    monkeypatch.chdir(folder)
    assert found("*.jpg", str(folder)) == {"a.jpg"}


def test_urls_of_files_here(tree):
    url = f"file://{tree}/with%20space.jpg"
    assert open_location(url) == (LocalFileSystem(), str(tree / "with space.jpg"))
    assert found(f"file://localhost{tree}/*.png", str(tree)) == {"b.png"}
    with pytest.raises(InputFileError, match="another machine"):
        open_location("file://elsewhere/a.jpg")


def test_locations_need_not_exist():
    assert open_location("/nowhere/at/all") == (LocalFileSystem(), "/nowhere/at/all")
    _, path = open_location("memory://nowhere/*/x")
    assert path.strip("/") == "nowhere/*/x"


def test_arrows_own_filesystems_get_their_options_and_wildcards():
    filesystem, path = open_location("s3://bucket/some folder/é/*.jpg?region=eu-west-1")
    assert (filesystem.type_name, filesystem.region) == ("s3", "eu-west-1")
    assert path == "bucket/some folder/é/*.jpg"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("{}/nothing.jpg", "there is no such file or folder"),
        ("{}/nothing/*.jpg", "no file matches"),
        ("{}/*.gif", "no file matches"),
        ("{}/o*", "folders do not count"),
        ("{}/empty", "there is no file in it"),
        ("{}/fifo", "neither a file nor a folder"),
        ("{}/a.jpg/b.jpg", "no such file"),
        ("nosuch://bucket/x", "cannot be opened"),
        ("memory://nothing-here", "no such file"),
        ("memory://nothing-here/*", "no file matches"),
        ("\0", "NUL|null"),
        ("", "."),
    ],
)
def test_what_cannot_be_listed(tree, path, reason, monkeypatch):
    (tree / "empty").mkdir()
    os.mkfifo(tree / "fifo")
    monkeypatch.chdir(tree / "empty")
    with pytest.raises(InputFileError, match=reason) as caught:
        list_files(path.format(tree))
    assert caught.value.path == path.format(tree)


def test_links_are_followed_and_what_is_no_file_is_left_out(tree, monkeypatch):
    os.mkfifo(tree / "fifo.jpg")
    listening = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tree)  # a socket's path must be short
    listening.bind("socket.jpg")
    (tree / "link.jpg").symlink_to(tree / "a.jpg")
    (tree / "folder").symlink_to(tree / "two")
    (tree / "one" / "loop").symlink_to(tree)
    (tree / "one" / "self").symlink_to(tree / "one")
    (tree / "nowhere.jpg").symlink_to(tree / "missing.jpg")
    _, files = list_files(str(tree))
    listening.close()
    names = {str(Path(file.path).relative_to(tree)) for file in files}
    assert names == VISIBLE | {"link.jpg", "folder/f.jpg", "nowhere.jpg"}
    assert [file.size_bytes for file in files if file.path.endswith("nowhere.jpg")] == [0]


def test_a_name_that_is_no_text_is_named(tree):
    (tree / os.fsdecode(b"\xff.jpg")).write_text("a")
    with pytest.raises(InputFileError, match=r"xff|udcff"):
        list_files(str(tree))


NAMES = st.text(st.sampled_from("ab[]*?!.-_ é%#&+"), min_size=1, max_size=6).filter(
    lambda name: name not in (".", "..")
)


@settings(deadline=None)
@given(st.sets(NAMES, min_size=1, max_size=6))
def test_every_name_can_be_said(names):
    root = Path("/tmp") / f"at-{uuid.uuid4().hex}"  # noqa: S108 - removed below
    root.mkdir()
    try:
        for name in names:
            (root / name).write_text(name)
        for name in names:
            _, [file] = list_files(str(root / name))
            assert file.path == str(root / name)
    finally:
        for name in names:
            (root / name).unlink()
        root.rmdir()


# -- writing -----------------------------------------------------------------------------------


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        yield SubTreeFileSystem(str(tmp_path), LocalFileSystem()), ""
        return
    filesystem, root = open_location(f"memory://w{uuid.uuid4().hex}")
    filesystem.create_dir(root)
    yield filesystem, f"{root}/"
    filesystem.delete_dir(root)


def listed(filesystem, root):
    infos = filesystem.get_file_info(FileSelector(root or "/"))
    return {info.base_name: info.type for info in infos}


def test_a_file_gets_its_name_when_it_is_whole(folder):
    filesystem, root = folder
    for content in (b"first", b"second"):
        with write_whole(filesystem, f"{root}data.gz") as stream:
            stream.write(content)
            names = set(listed(filesystem, root)) - {"data.gz"}
            assert all(name.startswith(".data.gz.") for name in names)
        with filesystem.open_input_stream(f"{root}data.gz", compression=None) as written:
            assert written.read() == content
        assert listed(filesystem, root) == {"data.gz": FileType.File}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_file_that_was_not_finished_leaves_nothing(folder, error):
    filesystem, root = folder
    with write_whole(filesystem, f"{root}data") as stream:
        stream.write(b"before")

    def fail():
        with write_whole(filesystem, f"{root}data") as stream:
            stream.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    with filesystem.open_input_stream(f"{root}data") as written:
        assert written.read() == b"before"
    assert listed(filesystem, root) == {"data": FileType.File}


def test_two_at_once_do_not_meet(folder):
    filesystem, root = folder
    with write_whole(filesystem, f"{root}x") as one, write_whole(filesystem, f"{root}x") as other:
        one.write(b"one")
        other.write(b"other")
    with filesystem.open_input_stream(f"{root}x") as written:
        assert written.read() == b"one"
    assert listed(filesystem, root) == {"x": FileType.File}


def test_a_long_name_is_no_hindrance(folder):
    filesystem, root = folder
    with write_whole(filesystem, f"{root}{'é' * 120}") as stream:
        stream.write(b"x")
    assert set(listed(filesystem, root)) == {"é" * 120}
