"""The models of the suite: real architectures, the project's own, and one that only carries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import openvino as ov
from onnx import TensorProto, helper

__all__ = ["SuiteModel", "carrier_model", "digits", "light", "of_pixels"]

_ROOT = Path(__file__).parent.parent
_LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
_CARRIED_OUT_BYTES = 16


@dataclass(frozen=True, slots=True)
class SuiteModel:
    """A model and the input it is measured with."""

    path: Path
    shape: tuple[int, ...]
    dtype: str = "float32"


def light(name: str) -> SuiteModel:
    """Return an architecture that ships with the onnx package: full compute, made-up weights."""
    return SuiteModel(_LIGHT / f"light_{name}.onnx", (1, 3, 224, 224))


def of_pixels(name: str, folder: Path) -> SuiteModel:
    """Write an architecture that takes pictures as they are decoded: bytes, channels last."""
    core = ov.Core()
    steps = ov.preprocess.PrePostProcessor(core.read_model(light(name).path))
    picture = steps.input(0)
    picture.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    picture.model().set_layout(ov.Layout("NCHW"))
    picture.preprocess().convert_element_type(ov.Type.f32)
    picture.preprocess().mean([123.7, 116.3, 103.5]).scale([58.4, 57.1, 57.4])
    path = folder / f"{name}-pixels.xml"
    ov.save_model(steps.build(), path, compress_to_fp16=False)
    return SuiteModel(path, (1, 224, 224, 3), "uint8")


def digits() -> SuiteModel:
    """Return the example's digit classifier."""
    return SuiteModel(_ROOT / "examples" / "models" / "digits.onnx", (1, 1, 8, 8))


def carrier_model(folder: Path, size_bytes: int) -> SuiteModel:
    """Write a model that takes any number of bytes and returns the first few of them.

    It computes next to nothing, so that what is measured is how the bytes get there.
    """
    path = folder / "carrier.onnx"
    if not path.exists():
        bounds = [
            helper.make_tensor("start", TensorProto.INT64, [1], [0]),
            helper.make_tensor("end", TensorProto.INT64, [1], [_CARRIED_OUT_BYTES]),
        ]
        graph = helper.make_graph(
            [helper.make_node("Slice", ["bytes", "start", "end"], ["first"])],
            "carrier",
            [helper.make_tensor_value_info("bytes", TensorProto.UINT8, ["size"])],
            [helper.make_tensor_value_info("first", TensorProto.UINT8, ["few"])],
            bounds,
        )
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return SuiteModel(path, (size_bytes,), "uint8")
