"""Which kind of input files are."""

from __future__ import annotations

import pytest

from atriva_inference import OptionError
from atriva_ray.batch.fragments import InputFile
from atriva_ray.batch.sources.find import KINDS, find_source
from atriva_ray.errors import InputFileError


def files(*paths):
    return [InputFile(path, 1) for path in paths]


@pytest.mark.parametrize("suffix", [s for suffixes in KINDS.values() for s in suffixes])
def test_suffixes_of_every_kind(suffix):
    kind = next(kind for kind, suffixes in KINDS.items() if suffix in suffixes)
    given = files(f"data/a{suffix}", f"data/b.x{suffix.upper()}")
    found = find_source(given)
    assert found.source.kind == kind
    assert list(found.files) == given
    assert found.ignored == 0
    assert found.source.identity.names[0] == "path"


def test_other_files_are_counted():
    found = find_source(files("d/a.jpg", "d/labels.txt", "d/sub/b.png", "d/README"))
    assert [file.path for file in found.files] == ["d/a.jpg", "d/sub/b.png"]
    assert found.ignored == 2


def test_several_kinds_are_a_question():
    several = files("d/a.jpg", "d/b.jpeg", "d/s/c.csv", "d/s/x.txt")
    with pytest.raises(InputFileError, match=r"'d'.*csv: 1, images: 2.*glob.*which kind"):
        find_source(several)
    found = find_source(several, kind="csv")
    assert ([file.path for file in found.files], found.ignored) == (["d/s/c.csv"], 3)


def test_a_kind_that_is_not_there():
    with pytest.raises(InputFileError, match="none of its files is of kind 'video'; images: 1"):
        find_source(files("d/a.jpg", "d/b"), kind="video")


def test_files_without_suffix_are_what_the_caller_says():
    given = files("d/0001", "d/0002.bin")
    found = find_source(given, kind="images")
    assert (found.source.kind, list(found.files)) == ("images", given)


def test_unknown_suffixes():
    with pytest.raises(
        InputFileError, match=r"'a.gif': unknown suffix '.gif'; known are .jpg.*\.npy"
    ):
        find_source(files("a.gif"))
    with pytest.raises(InputFileError, match=r"'/d/e': unknown suffix '', '.txt'"):
        find_source(files("/d/e/f/a.txt", "/d/e/g/b"))


def test_an_unknown_kind():
    with pytest.raises(OptionError, match="one of images, parquet, npy, npz, csv, jsonl, video"):
        find_source(files("a.jpg"), kind="image")


def test_every_n_th_frame_is_for_videos():
    assert find_source(files("a.mp4"), every=5).source.every == 5
    with pytest.raises(OptionError, match="images have no frames to skip"):
        find_source(files("a.jpg"), every=5)
    with pytest.raises(OptionError, match="at least 1"):
        find_source(files("a.mp4"), every=0)
