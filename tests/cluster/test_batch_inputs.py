"""What people feed a batch job with: damaged pictures, Ray Data sets, wrong options."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from atriva_ray import (
    InferenceRuntime,
    InputFileError,
    OptionError,
    OutputFolderError,
    Preprocessing,
    ResumeError,
    TooManyBadRowsError,
)
from atriva_ray.batch import TopK, run
from tests.conftest import EXAMPLES

DIGITS = EXAMPLES / "models" / "digits.onnx"
PIXELS = Preprocessing(color="gray", scale=(15,))


@pytest.fixture(scope="module")
def held_out():
    with np.load(EXAMPLES / "models" / "digits_heldout.npz") as data:
        return data["images"], data["labels"]


def quarantined(output: Path) -> dict[str, str]:
    lines = (output / "_atriva" / "quarantine.jsonl").read_text().splitlines()
    return {Path(row["path"]).name: row["reason"] for row in map(json.loads, lines)}


def damage(folder: Path, good: bytes) -> tuple[set[str], set[str]]:
    """Write 37 files of which no two are odd in the same way; return usable and hopeless ones."""
    usable, hopeless = set(), set()

    def put(name: str, content: bytes) -> None:
        hopeless.add(name)
        (folder / name).write_bytes(content)

    def save(name: str, picture: Image.Image, **options) -> None:
        usable.add(name)
        picture.save(folder / name, **options)

    for index in range(8):
        put(f"cut-{index}.jpg", good[: len(good) * (index + 1) // 10])
    for index in range(4):
        put(f"empty-{index}.jpg", b"")
        put(f"text-{index}.jpg", b"this is no picture\n" * (index + 1))
    put("zeros.png", bytes(5_000))
    rng = np.random.default_rng(3)
    picture = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
    for index in range(3):
        save(f"dot-{index}.png", picture.resize((1, 1)))
        save(f"cmyk-{index}.jpg", picture.convert("CMYK"))
        save(f"wide-{index}.png", picture.resize((20_000, 1)))
    for index in range(8):
        exif = picture.getexif()
        exif[0x0112] = index + 1
        save(f"turned-{index}.jpg", picture, exif=exif)
    for index in range(3):
        deep = Image.fromarray(rng.integers(0, 65_536, (40, 50), np.uint16))
        save(f"deep-{index}.png", deep)
    return usable, hopeless


def test_damaged_pictures_are_predicted_or_quarantined(embedded_cluster, held_out, tmp_path):
    images, _ = held_out
    folder, output = tmp_path / "pictures", tmp_path / "answers"
    folder.mkdir()
    for index in range(1_000):
        Image.fromarray(images[index % len(images)][0] * 15).save(folder / f"good-{index:04d}.png")
    large = Image.fromarray(np.kron(images[0][0] * 15, np.ones((60, 60), np.uint8)))
    large.save(tmp_path / "good.jpg")
    usable, hopeless = damage(folder, (tmp_path / "good.jpg").read_bytes())
    assert len(usable) + len(hopeless) == 37
    report = run(DIGITS, folder, output, preprocessing=PIXELS, top_k=1)
    answered = {Path(path).name for path in pq.read_table(output)["path"].to_pylist()}
    bad = quarantined(output)
    assert report.rows_in == 1_037 == report.rows_out + report.rows_bad
    assert answered == usable | {f"good-{index:04d}.png" for index in range(1_000)}
    assert set(bad) == hopeless
    assert all(len(reason) > 10 for reason in bad.values())


def test_answers_are_those_of_one_process(embedded_cluster, held_out, tmp_path):
    from atriva_inference import InferenceRuntime as OneProcess  # noqa: PLC0415 - beside the other

    images, _ = held_out
    np.save(tmp_path / "rows.npy", images)
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    run(DIGITS, tmp_path / "rows.npy", tmp_path / "out", config=config)
    column = pq.read_table(tmp_path / "out")["output"].combine_chunks()
    with OneProcess() as runtime, runtime.load_model(DIGITS, config=config) as model:
        expected = model.run({"input": images})["output"].to_numpy()
    assert np.allclose(column.to_numpy_ndarray(), expected, atol=1e-5)


def test_a_data_set_of_ray_data_is_run_and_resumed(embedded_cluster, held_out, tmp_path):
    import ray  # noqa: PLC0415 - the cluster comes first

    images, labels = held_out
    table = pa.table(
        {"input": pa.FixedShapeTensorArray.from_numpy_ndarray(images), "label": labels}
    )
    options = {"keep": ["label"], "top_k": TopK(2, labels=tuple("0123456789"))}
    for is_again in (False, True):
        report = run(
            DIGITS, ray.data.from_arrow(table), tmp_path / "out", resume=is_again, **options
        )
        assert report.rows_in == report.rows_out == len(images)
        assert report.rows_before == (len(images) if is_again else 0)
    found = pq.read_table(tmp_path / "out").to_pandas()
    assert found["row"].tolist() == list(range(len(images)))
    assert (found["label"] == found["class"]).mean() > 0.97
    assert (found["label_"] == found["class"].astype(str)).all()
    other = table.set_column(1, "label", pa.array(labels[::-1]))
    with pytest.raises(ResumeError, match="other rows"):
        run(DIGITS, ray.data.from_arrow(other), tmp_path / "out", resume=True, **options)


def test_predict_is_a_lazy_step(embedded_cluster, held_out):
    import ray  # noqa: PLC0415 - the cluster comes first

    images, labels = held_out
    rows = [{"pixels": image, "label": label} for image, label in zip(images, labels, strict=True)]
    with InferenceRuntime() as runtime:
        model = runtime.load_model(DIGITS, reserve_cpus=False)
        answers = model.predict(ray.data.from_items(rows), columns={"input": "pixels"}, top_k=3)
        found = answers.select_columns(["label", "class", "top_classes"]).take_all()
    assert len(found) == len(images)
    assert np.mean([row["label"] == row["class"] for row in found]) > 0.97
    assert all(len(row["top_classes"]) == 3 for row in found)


def test_what_does_not_fit_is_said_at_once(embedded_cluster, held_out, tmp_path):
    images, _ = held_out
    rows, output = tmp_path / "rows.npy", tmp_path / "out"
    np.save(rows, images[:4])
    with pytest.raises(InputFileError, match="no such file"):
        run(DIGITS, tmp_path / "none", output)
    with pytest.raises(OptionError, match="parquet, jsonl, npy"):
        run(DIGITS, rows, output, format="xml")
    with pytest.raises(OptionError, match="1 to 10"):
        run(DIGITS, rows, output, top_k=11)
    with pytest.raises(OptionError, match="batch_size"):
        run(DIGITS, rows, output, batch_size=0)
    with pytest.raises(OptionError, match="feeders"):
        run(DIGITS, rows, output, feeders=0)
    with pytest.raises(OptionError, match="npy input has no columns"):
        run(DIGITS, rows, output, keep=["label"])
    output.mkdir()
    (output / "mine.txt").write_text("not to be touched")
    with pytest.raises(OutputFolderError, match=r"mine\.txt"):
        run(DIGITS, rows, output)
    assert [path.name for path in output.iterdir()] == ["mine.txt"]


def test_too_many_bad_rows_end_a_job_that_can_be_resumed(embedded_cluster, held_out, tmp_path):
    images, _ = held_out
    folder, output = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    for index in range(5):
        Image.fromarray(images[index][0]).save(folder / f"{index}.png")
        (folder / f"bad-{index}.png").write_bytes(b"no picture")
    with pytest.raises(TooManyBadRowsError, match="at most 3 are allowed"):
        run(DIGITS, folder, output, preprocessing=PIXELS, max_bad=3)
    report = run(DIGITS, folder, output, preprocessing=PIXELS, resume=True)
    assert (report.rows_out, report.rows_bad) == (5, 5)


def test_a_loaded_model_can_be_used(embedded_cluster, held_out, tmp_path):
    images, _ = held_out
    np.save(tmp_path / "rows.npy", images)
    with InferenceRuntime() as runtime:
        model = runtime.load_model(DIGITS, name="digits-for-batch")
        with pytest.raises(OptionError, match="loaded already"):
            run(model, tmp_path / "rows.npy", tmp_path / "out", device="CPU")
        report = run(model, tmp_path / "rows.npy", tmp_path / "out")
        assert report.rows_out == len(images)
        assert model.run({"input": images[:1]})["output"].shape == (1, 10)


def test_two_jobs_do_not_write_to_one_folder(embedded_cluster, held_out, tmp_path):
    from pyarrow.fs import LocalFileSystem  # noqa: PLC0415

    from atriva_ray.batch.manifest import Manifest  # noqa: PLC0415 - after Ray

    images, _ = held_out
    np.save(tmp_path / "rows.npy", images[:4])
    other = Manifest(LocalFileSystem(), str(tmp_path / "out"))
    other.claim()
    with pytest.raises(OutputFolderError, match="another job is writing"):
        run(DIGITS, tmp_path / "rows.npy", tmp_path / "out")
    other.release()
    assert run(DIGITS, tmp_path / "rows.npy", tmp_path / "out").rows_out == 4
