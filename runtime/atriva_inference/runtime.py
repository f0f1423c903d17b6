"""`InferenceRuntime` in one process."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy.typing as npt

from atriva_inference.adaptive import compile_adaptive
from atriva_inference.admission import DEFAULT_MAX_WAITING, check_max_waiting
from atriva_inference.backend import Backend, CompiledModel, make_backend
from atriva_inference.device import Device, DeviceSpec
from atriva_inference.errors import ClosedError, CompileError, DeviceNotAvailableError, OptionError
from atriva_inference.executor import LocalExecutor
from atriva_inference.model import Model
from atriva_inference.model_files import ModelFiles
from atriva_inference.options import CompileOptions, PerformanceHint
from atriva_inference.preprocess import Preprocessing, check_preprocessing
from atriva_inference.tensor import DEFAULT_LAYOUT, Tensor

__all__ = ["InferenceRuntime", "compile_model"]

_logger = logging.getLogger(__name__)


def compile_model(
    backend: Backend, files: ModelFiles, spec: DeviceSpec, options: CompileOptions
) -> CompiledModel:
    """Compile on the first device that can, in the order that the expression prefers.

    Raises:
        DeviceNotAvailableError: no device that is there fits the expression.
        CompileError: every candidate refused, with what each one said.
        ModelUnreadableError: the files are no model for this backend.
    """
    devices = backend.devices()
    if spec.node is not None:
        names = [device.name for device in devices]
        raise DeviceNotAvailableError(
            spec.text, names, "in one process (node/DEVICE needs a cluster)"
        )
    chosen = spec.choose(devices)
    how = compile_adaptive if options.hint is PerformanceHint.ADAPTIVE else _compile_once
    reasons: dict[str, str] = {}
    for device in backend.expand(spec, chosen, options):
        try:
            compiled = how(backend, files, device, options)
        except CompileError as error:
            reasons |= error.reasons
            continue
        for refused, reason in reasons.items():
            _logger.warning(
                "%s cannot compile %s, %s does: %s", refused, files.path, device, reason
            )
        return compiled
    raise CompileError(str(files.path), spec.text, reasons)


def _compile_once(
    backend: Backend, files: ModelFiles, device: str, options: CompileOptions
) -> CompiledModel:
    return backend.compile(files, device, options)


class InferenceRuntime:
    """Loads models and runs them in this process.

    Close it, or use it as a context manager; that closes the models it loaded. Thread-safe.
    """

    def __init__(self, backend: str = "openvino") -> None:
        """Open a backend.

        Args:
            backend: ``openvino`` (CPU, GPU, NPU), ``onnxruntime`` (CPU, CUDA) or ``tensorrt``
                (NVIDIA GPU), or one added with `register_backend`.

        Raises:
            UnknownBackendError: there is no such backend.
            BackendNotInstalledError: its library is not installed; the message says how to.
        """
        self._backend = make_backend(backend)
        self._models: weakref.WeakSet[Model] = weakref.WeakSet()
        self._is_closed = False

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self._backend.name

    def devices(self) -> list[Device]:
        """Return the devices that are really there, the one AUTO prefers first."""
        self._check_open()
        return sorted(self._backend.devices(), key=lambda device: device.preference)

    def load_model(
        self,
        model_path: str | os.PathLike[str],
        device: str = "AUTO",
        *,
        performance_hint: str = PerformanceHint.THROUGHPUT,
        config: Mapping[str, Any] | None = None,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        name: str | None = None,
        max_waiting: int | None = DEFAULT_MAX_WAITING,
    ) -> Model:
        """Read a model and compile it; blocks until it can answer.

        Args:
            model_path: OpenVINO IR (.xml), ONNX, TensorFlow (frozen .pb or SavedModel directory),
                TensorFlow Lite or PaddlePaddle (.pdmodel); ONNX only with ``onnxruntime``.
            device: ``AUTO`` prefers GPU, then NPU, then other plug-ins, then CPU, among those that
                are there and can compile the model. Also a device name, ``AUTO:GPU,CPU``,
                ``AUTO:-CPU``, and OpenVINO's ``MULTI:``, ``HETERO:``, ``BATCH:``.
            performance_hint: ``LATENCY``, ``THROUGHPUT`` or ``CUMULATIVE_THROUGHPUT``.
            config: backend properties, passed through as they are.
            preprocessing: what to build into the model so that it takes uint8 pixels: a
                `Preprocessing`, or a mapping of its fields.
            name: what to call the model; the file's name when None.
            max_waiting: requests that may wait while others run; one more is refused at once with
                `OverloadedError`. None: any number.

        Raises:
            ModelError: the file is missing, unreadable, or no candidate can compile it.
            DeviceNotAvailableError: no such device is there.
            OptionError: the device, hint, config, preprocessing or limit is not acceptable.
        """
        self._check_open()
        limit = check_max_waiting(max_waiting)
        spec = DeviceSpec.parse(device)
        options = CompileOptions(
            PerformanceHint.parse(performance_hint),
            check_config(config),
            preprocessing=check_preprocessing(preprocessing),
        )
        files = ModelFiles.find(model_path)
        compiled = compile_model(self._backend, files, spec, options)
        model_name = name or files.name
        model = Model(model_name, LocalExecutor(model_name, compiled, limit))
        self._models.add(model)
        return model

    def tensor_from_numpy(
        self,
        array: npt.ArrayLike,
        layout: str | None = DEFAULT_LAYOUT,
        shape_override: Sequence[int] | None = None,
    ) -> Tensor:
        """Wrap an array as a tensor without copying it; see `Tensor.from_numpy`.

        The element type and the axes are fitted to the model when the tensor is run: the data is
        copied then, once, only if its dtype or layout differs or it is not C-contiguous.
        """
        self._check_open()
        return Tensor.from_numpy(array, layout, shape_override)

    def close(self) -> None:
        """Close every model that this runtime loaded; safe to call again."""
        self._is_closed = True
        for model in list(self._models):
            model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<InferenceRuntime backend={self.backend!r} in this process>"

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError("this runtime")


def check_config(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the backend properties as a dict.

    Raises:
        OptionError: it is not a mapping of strings to values.
    """
    if config is None:
        return {}
    if not isinstance(config, Mapping) or not all(isinstance(key, str) for key in config):
        raise OptionError("config", repr(config), "a dict of property name to value")
    return dict(config)
