"""TensorRT on NVIDIA GPUs, through ONNX Runtime's execution provider for it."""

from __future__ import annotations

import importlib.util

import onnxruntime as ort

from atriva_inference.backend import register_backend
from atriva_inference.backends.onnxruntime import OnnxRuntimeBackend
from atriva_inference.device import Device
from atriva_inference.errors import BackendNotInstalledError

__all__ = ["TensorRtBackend"]

_INSTALL = "pip uninstall onnxruntime && pip install onnxruntime-gpu tensorrt"


class TensorRtBackend(OnnxRuntimeBackend):
    """ONNX models that TensorRT builds engines for; the first load of a model takes a while."""

    name = "tensorrt"
    gpu_provider = "TensorrtExecutionProvider"

    def __init__(self) -> None:
        if importlib.util.find_spec("tensorrt") is None:
            raise BackendNotInstalledError(self.name, "the library 'tensorrt'", _INSTALL)
        if self.gpu_provider not in ort.get_available_providers():
            raise BackendNotInstalledError(
                self.name, f"an ONNX Runtime with {self.gpu_provider}", _INSTALL
            )

    def devices(self) -> list[Device]:
        """Return NVIDIA GPUs only."""
        return self.gpus()


register_backend(TensorRtBackend.name, TensorRtBackend)
