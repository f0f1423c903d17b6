"""Shared memory: its size is what was said and stays so, and no descriptor is left open."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import socket
from pathlib import Path

import pytest

from atriva_ray.lanes import memory
from atriva_ray.lanes.errors import FrameError

FOLDER = Path("/proc/self/fd")
SIZE = 3 * mmap.PAGESIZE
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def open_descriptors():
    return {path.name: str(path.readlink()) for path in FOLDER.iterdir() if path.is_symlink()}


@pytest.fixture(autouse=True)
def no_descriptor_is_left():
    gc.collect()
    before = open_descriptors()
    yield
    gc.collect()
    after = open_descriptors()
    assert {number: after[number] for number in after.keys() - before.keys()} == {}


def memfd(size, seals=SEALS):
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def test_both_ends_see_the_same_memory():
    mine, descriptor = memory.create(SIZE)
    theirs = memory.attach(descriptor, SIZE)
    mine[:5] = b"input"
    theirs[-6:] = b"answer"
    assert theirs[:5] == b"input"
    assert mine[-6:] == b"answer"
    assert len(mine) == len(theirs) == SIZE


def test_new_memory_is_empty_and_can_be_written():
    mine, descriptor = memory.create(SIZE)
    os.close(descriptor)
    assert mine[:] == bytes(SIZE)
    mine[:] = b"\xff" * SIZE
    assert mine[:] == b"\xff" * SIZE


def test_its_size_can_never_change():
    _, descriptor = memory.create(SIZE)
    for size in (0, SIZE - 1, SIZE + mmap.PAGESIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
    os.close(descriptor)


def test_its_descriptor_does_not_reach_programs_that_are_started():
    _, descriptor = memory.create(SIZE)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_it_ends_with_its_users():
    mine, descriptor = memory.create(SIZE)
    theirs = memory.attach(descriptor, SIZE)
    mine[:4] = b"last"
    del mine
    assert theirs[:4] == b"last"


@pytest.mark.parametrize("seals", [0, SEALS & ~fcntl.F_SEAL_SHRINK, SEALS & ~fcntl.F_SEAL_SEAL])
def test_memory_that_could_shrink_is_refused(seals):
    with pytest.raises(FrameError, match="could change"):
        memory.attach(memfd(SIZE, seals), SIZE)


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1, 2**40, 2**63, 2**64 - 1])
def test_memory_of_another_size_is_refused(size):
    with pytest.raises(FrameError, match="size"):
        memory.attach(memfd(SIZE), size)


def test_memory_without_a_byte_is_refused():
    with pytest.raises(FrameError):
        memory.attach(memfd(0), 0)


def pipe():
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def unix_socket():
    one, other = socket.socketpair()
    other.close()
    return one.detach()


def file_of(path, size=SIZE):
    def opened():
        path.write_bytes(bytes(size))
        return os.open(path, os.O_RDWR)

    return opened


@pytest.mark.parametrize("kind", ["pipe", "socket", "file", "folder", "device", "eventfd"])
def test_a_descriptor_of_something_else_is_refused(kind, tmp_path):
    descriptor = {
        "pipe": pipe,
        "socket": unix_socket,
        "file": file_of(tmp_path / "file"),
        "folder": lambda: os.open(tmp_path, os.O_RDONLY),
        "device": lambda: os.open("/dev/zero", os.O_RDWR),
        "eventfd": lambda: os.eventfd(0),
    }[kind]()
    with pytest.raises(FrameError):
        memory.attach(descriptor, SIZE)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_memory_that_may_only_be_read_is_refused():
    writable = memfd(SIZE)
    readable = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    os.close(writable)
    with pytest.raises((FrameError, OSError)):
        memory.attach(readable, SIZE)


def test_memory_sealed_against_writing_is_refused():
    with pytest.raises((FrameError, OSError)):
        memory.attach(memfd(SIZE, SEALS | fcntl.F_SEAL_WRITE), SIZE)


@pytest.mark.parametrize("size", [2**62, 2**63 - 1])
def test_more_memory_than_there_can_be_is_an_error_of_the_system(size):
    with pytest.raises(OSError, match=r".+"):
        memory.create(size)
