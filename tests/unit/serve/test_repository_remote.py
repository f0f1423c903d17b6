"""Repositories behind URLs, and the copies of their models."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from atriva_inference.model_files import ModelFiles, ModelFormat
from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository import remote
from atriva_ray.serve.repository.remote import ModelCache, read_remote
from atriva_ray.serve.repository.store import open_model, open_repository
from tests.unit.serve.repositories import FILES, MODELS, SAVED_MODEL, by_name, put, write

ROOT = "memory://models"


@pytest.fixture
def bucket():
    """A store in memory; what it holds is put there by path."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


@pytest.fixture
def cache(tmp_path):
    with ModelCache(tmp_path / "cache") as opened:
        yield opened


def upload(bucket, folder, kind):
    if kind == "saved_model":
        bucket.put(str(SAVED_MODEL), f"{folder}/model.savedmodel", recursive=True)
    else:
        for name in FILES[kind]:
            bucket.pipe(f"{folder}/{Path(name).name}", (MODELS / name).read_bytes())


def only(location=ROOT):
    (model,) = open_repository(location).look().models
    return model


def kept(cache):
    return [each for each in cache.folder.iterdir() if not each.name.startswith(".")]


@pytest.mark.parametrize("location", [ROOT, ROOT + "/", "memory://"])
@pytest.mark.parametrize("place", ["net/1", "net"])
@pytest.mark.parametrize("kind", [*FILES, "saved_model"])
def test_every_format_is_fetched_whole(bucket, cache, location, place, kind):
    root = "/models" if "models" in location else ""
    upload(bucket, f"{root}/{place}", kind)
    with open_repository(location, cache=cache) as repository:
        (model,) = repository.look().models
        assert (model.name, model.problems, model.unready) == ("net", (), ())
        path = repository.fetch(model.versions[0])
        source = SAVED_MODEL if kind == "saved_model" else MODELS / FILES[kind][0]
        assert path.is_relative_to(cache.folder)
        assert ModelFiles.find(path).size_bytes == ModelFiles.find(source).size_bytes
        repository.release(model.versions[0])
    assert kept(cache) == []


def test_settings_and_labels_are_read_where_they_are(bucket):
    upload(bucket, "/models/net/1", "onnx")
    bucket.pipe("/models/net/model.yaml", b"labels: labels.txt\ntop_k: 1")
    bucket.pipe("/models/net/labels.txt", b"a\nb\n")
    model = only()
    assert model.settings.labels_of("x") == ("a", "b")
    bucket.pipe("/models/net/model.yaml", b"#" * 2_000_000)
    assert "larger than" in only().problems[0]


def test_half_of_a_model_is_not_ready(bucket):
    upload(bucket, "/models/net/1", "ir")
    bucket.rm("/models/net/1/model.bin")
    assert "weights" in only().unready[0].reason
    upload(bucket, "/models/net/1", "ir")
    assert not only().unready


def test_a_look_sees_what_is_there_now(bucket):
    upload(bucket, "/models/net/1", "onnx")
    repository = open_repository(ROOT)
    (before,) = repository.look().models
    assert repository.look().models == (before,)
    time.sleep(0.001)  # the store in memory tells files apart by their times
    upload(bucket, "/models/net/1", "onnx")
    upload(bucket, "/models/net/2", "tflite")
    (after,) = repository.look().models
    assert [each.version for each in after.versions] == [1, 2]
    assert after.versions[0].fingerprint != before.versions[0].fingerprint


def test_the_same_version_is_downloaded_once(bucket, cache, monkeypatch):
    upload(bucket, "/models/net/1", "ir")
    version = only().versions[0]
    first = cache.fetch(version)
    monkeypatch.setattr(type(bucket), "get", None)
    assert cache.fetch(version) == first
    cache.release(version)
    assert first.is_file()
    cache.release(version)
    assert not first.exists()
    cache.release(version)  # once too often does nothing


def test_the_next_server_finds_what_is_kept(bucket, tmp_path, monkeypatch):
    upload(bucket, "/models/net/1", "onnx")
    version = only().versions[0]
    with ModelCache(tmp_path) as before:
        path = before.fetch(version)
    monkeypatch.setattr(type(bucket), "get", None)
    with ModelCache(tmp_path) as after:
        assert after.fetch(version) == path


def test_many_ask_at_once_and_one_copy_is_made(bucket, cache, monkeypatch):
    upload(bucket, "/models/net/1", "onnx")
    version = only().versions[0]
    calls = []
    get = type(bucket).get
    monkeypatch.setattr(type(bucket), "get", lambda *args: calls.append(1) or get(*args))
    threads = [threading.Thread(target=cache.fetch, args=(version,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]


def test_a_temporary_cache_goes_with_its_repository(bucket):
    upload(bucket, "/models/net/1", "onnx")
    with open_repository(ROOT) as repository:
        path = repository.fetch(repository.look().models[0].versions[0])
        assert path.is_file()
        folder = path.parent.parent
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    repository.close()


def test_what_changes_while_it_is_downloaded_is_not_taken(bucket, cache, monkeypatch):
    upload(bucket, "/models/net/1", "onnx")
    version = only().versions[0]
    get = type(bucket).get

    def change(self, *args):
        get(self, *args)
        self.pipe("/models/net/1/conv.onnx", b"other")

    monkeypatch.setattr(type(bucket), "get", change)
    with pytest.raises(RepositoryError, match="changed while it was downloaded"):
        cache.fetch(version)
    assert list(cache.folder.iterdir()) == []
    cache.release(version)


def test_what_is_gone_by_then_leaves_nothing_behind(bucket, cache):
    upload(bucket, "/models/net/1", "ir")
    version = only().versions[0]
    bucket.rm("/models", recursive=True)
    with pytest.raises(RepositoryError):
        cache.fetch(version)
    assert list(cache.folder.iterdir()) == []


def test_the_cache_has_its_limit(bucket, tmp_path):
    for number, name in enumerate("abc"):
        bucket.pipe(f"/models/{name}/1/m.onnx", bytes([number]) * 100)
    models = by_name(open_repository(ROOT).look().models)
    a, b, c = (models[name].versions[0] for name in "abc")
    with ModelCache(tmp_path) as before:
        for age, version in enumerate((a, b)):
            os.utime(before.fetch(version).parent, (age, age))
    cache = ModelCache(tmp_path, limit_bytes=250)
    kept_b = cache.fetch(b)
    cache.fetch(c)  # nobody uses a
    assert len(kept(cache)) == 2
    with pytest.raises(
        RepositoryError, match="100 bytes do not fit into the cache: of 250 bytes 50"
    ):
        cache.fetch(a)
    assert kept_b.read_bytes() == b"\1" * 100
    cache.release(c)
    assert cache.fetch(a).read_bytes() == b"\0" * 100


def test_too_large_a_model_costs_no_other(bucket, tmp_path):
    bucket.pipe("/models/net/1/m.onnx", b"x" * 100)
    cache = ModelCache(tmp_path, limit_bytes=99)
    with pytest.raises(RepositoryError, match="do not fit"):
        cache.fetch(only().versions[0])


def test_what_killed_servers_left_is_removed_in_time(tmp_path, monkeypatch):
    write(tmp_path / ".incoming-x/version/m.onnx", "half")
    write(tmp_path / "mine/notes.txt", "kept")
    ModelCache(tmp_path)
    assert (tmp_path / ".incoming-x").is_dir()
    monkeypatch.setattr(remote, "_UNFINISHED_S", -1.0)
    ModelCache(tmp_path, limit_bytes=1)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mine"]


def test_a_cache_that_cannot_be(tmp_path):
    with pytest.raises(RepositoryError):
        ModelCache(write(tmp_path / "file", "x"))


def test_files_cannot_be_written_outside_of_the_cache(bucket, cache):
    upload(bucket, "/models/net/1", "onnx")
    version = replace(only().versions[0], files=("../../../evil",))
    with pytest.raises(RepositoryError, match="bad name"):
        cache.fetch(version)


def test_keys_that_no_file_can_have(bucket):
    upload(bucket, "/models/good/1", "onnx")
    for key in ("/models/a/1/../../evil.onnx", "/models/b//m.onnx", "/models/c/1/x\0.onnx"):
        bucket.store[key] = bucket.store["/models/good/1/conv.onnx"]
    models = by_name(open_repository(ROOT).look().models)
    assert [each.version for each in models["good"].versions] == [1]
    assert not any(each.versions for name, each in models.items() if name != "good")


def test_one_file_or_folder_may_be_the_model(bucket, cache):
    upload(bucket, "/models", "ir")
    upload(bucket, "/models", "onnx")
    upload(bucket, "/models/more/3", "tflite")
    for argument, name, entry in (
        (f"{ROOT}/model.xml", "model", "model.xml"),
        (f"net={ROOT}/conv.onnx", "net", "conv.onnx"),
        (f"{ROOT}/more", "more", "model.tflite"),
    ):
        with open_model(argument, cache=cache) as repository:
            (model,) = repository.look().models
            assert (model.name, model.problems) == (name, ())
            path = repository.fetch(model.versions[0])
            assert path.name == entry
            assert ModelFiles.find(path)


def test_a_file_is_no_repository(bucket):
    upload(bucket, "/models/net/1", "onnx")
    with pytest.raises(RepositoryError, match="it is a file"):
        open_repository(f"{ROOT}/net/1/conv.onnx").look()


def test_a_listing_may_have_anything_in_it():
    names = ["https://a.b/m", "https://a.b/m/", "https://a.b/", "https://a.b/mm/x", "https://c/x"]
    names += ["https://a.b/m/net/1/x.onnx", "https://a.b/m/net/", "https://a.b/m/.hidden/x"]
    found = [{"name": name, "size": None, "type": "file"} for name in names]
    assert sorted(remote._entries("https://a.b/m", found, None)) == ["net", "net/1/x.onnx"]


def test_nothing_there(bucket):
    for place in (f"{ROOT}/nowhere", f"{ROOT}/nowhere.onnx"):
        with pytest.raises(RepositoryError, match="there is nothing there"):
            open_repository(place).look()
        with pytest.raises(RepositoryError, match="there is nothing there"):
            open_model(place).look()


@pytest.mark.parametrize(
    "url", ["nosuch://bucket/models", "simplecache::memory://x", "zip://a::memory://x"]
)
def test_urls_that_cannot_be_opened(url):
    with pytest.raises(RepositoryError):
        read_remote(url)


def test_a_store_that_fails_is_told_in_its_words(bucket, monkeypatch):
    upload(bucket, "/models/net/1", "onnx")
    version = only().versions[0]

    def fail(*_args, **_options):
        raise RuntimeError("no credentials\nTraceback …")

    monkeypatch.setattr(type(bucket), "find", fail)
    monkeypatch.setattr(type(bucket), "get", fail)
    with pytest.raises(RepositoryError, match=r"no credentials$"):
        open_repository(ROOT).look()
    with ModelCache() as cache, pytest.raises(RepositoryError, match=r"no credentials$"):
        cache.fetch(version)


@pytest.mark.parametrize(
    ("info", "stamp"),
    [
        ({"ETag": '"a"', "LastModified": 1}, 'ETag="a"'),
        ({"md5Hash": "x", "updated": 2}, "md5Hash=x"),
        ({"mtime": 3.5, "created": 1}, "mtime=3.5"),
        ({}, ""),
    ],
)
def test_checksums_count_before_times(info, stamp):
    assert remote._stamp(info) == stamp


def test_a_file_url_is_a_path(tmp_path):
    put(tmp_path / "a b/net/1", "onnx")
    for url in ((tmp_path / "a b").as_uri(), f"file://localhost{tmp_path}/a b"):
        with open_repository(url) as repository:
            (model,) = repository.look().models
            path = repository.fetch(model.versions[0])
            assert path == tmp_path / "a b/net/1/conv.onnx"
            assert ModelFiles.find(path).format is ModelFormat.ONNX
    (model,) = open_model((tmp_path / "a b/net/1/conv.onnx").as_uri()).look().models
    assert model.name == "conv"
    with pytest.raises(RepositoryError, match="another machine"):
        open_repository("file://elsewhere/models")
