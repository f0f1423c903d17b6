"""ONNX Runtime: CPU, and CUDA under OpenVINO's name for it, ``GPU``."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from atriva_inference.backend import CompiledModel, register_backend
from atriva_inference.backends.preprocessed import PreprocessedModel
from atriva_inference.binding import ShapeSignature
from atriva_inference.device import Device, DeviceSpec, Selection
from atriva_inference.errors import (
    CompileError,
    InferenceFailedError,
    InputShapeError,
    ModelUnreadableError,
    OptionError,
)
from atriva_inference.model_files import ModelFiles, ModelFormat
from atriva_inference.options import CompileOptions, PerformanceHint
from atriva_inference.pixel_input import PixelInput
from atriva_inference.ports import Port, guess_image_layout
from atriva_inference.profiling import LayerProfile, Profile
from atriva_inference.tensor import Array

__all__ = ["OnnxRuntimeBackend"]

_CPU_PROVIDER = "CPUExecutionProvider"
_MAX_SLOTS = 8
_LOG_FATAL_ONLY = 4
_STRICT_PLACEMENT = "session.disable_cpu_ep_fallback"
_UNREADABLE = (
    ort_errors.InvalidProtobuf,
    ort_errors.InvalidGraph,
    ort_errors.InvalidArgument,
    ort_errors.NoSuchFile,
    ort_errors.NoModel,
)
_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bool": "bool",
    "string": "U",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class OnnxRuntimeBackend:
    """ONNX models on the execution providers that are installed and have hardware."""

    name = "onnxruntime"
    gpu_provider = "CUDAExecutionProvider"

    def devices(self) -> list[Device]:
        """Return the CPU, and NVIDIA GPUs when ONNX Runtime was built for them."""
        return [Device("CPU", platform.processor() or platform.machine(), ("FP32",)), *self.gpus()]

    def gpus(self) -> list[Device]:
        """Return the NVIDIA GPUs this process may use, none without the execution provider."""
        if self.gpu_provider not in ort.get_available_providers():
            return []
        return [
            Device(f"GPU.{index}", name, ("FP32", "FP16"), is_discrete=True)
            for index, name in enumerate(_nvidia_gpu_names())
        ]

    def expand(
        self, spec: DeviceSpec, devices: Sequence[Device], options: CompileOptions
    ) -> list[str]:
        """Return single devices: ONNX Runtime runs a model on one device at a time."""
        names = [device.name for device in devices]
        is_together = spec.selection is not Selection.EXACT and (
            spec.selection is not Selection.AUTO
            or (options.hint is PerformanceHint.CUMULATIVE_THROUGHPUT and len(names) > 1)
        )
        if is_together:
            raise OptionError(
                "device",
                f"{spec.text} with {options.hint}",
                f"one device or AUTO: {self.name} runs a model on one device "
                "(on a cluster, load it with replicas on several)",
            )
        return names

    def compile(self, files: ModelFiles, device: str, options: CompileOptions) -> CompiledModel:
        """Create a session, never with another provider than the one for `device`."""
        if files.format is not ModelFormat.ONNX:
            raise ModelUnreadableError(
                str(files.path), self.name, f"it is {files.format}, and only ONNX can be read"
            )
        provider = _CPU_PROVIDER if device == "CPU" else self.gpu_provider
        compiled = _CompiledModel(files, device, provider, options, {})
        if options.preprocessing is None:
            return compiled
        target = PixelInput.find(options.preprocessing, compiled.inputs)
        try:
            compiled = compiled.with_sizes({target.model.name: target.model.shape or ()})
        except InputShapeError as error:
            asked = str(options.preprocessing.resize)
            raise OptionError("resize", asked, f"sizes that fit together: {error.hint}") from error
        return PreprocessedModel(compiled, options.preprocessing, target)


class _CompiledModel:
    def __init__(
        self,
        files: ModelFiles,
        device: str,
        provider: str,
        options: CompileOptions,
        dimensions: Mapping[str, int],
    ) -> None:
        self._files = files
        self._provider = provider
        self._options = options
        self._dimensions = dimensions
        self.device = device
        self.slot_count, self._thread_count = _parallelism(device, options)
        self._session, self.execution_devices = self._open_session()
        self.inputs = tuple(map(self._input_port, self._session.get_inputs()))
        self.outputs = tuple(map(self._port, self._session.get_outputs()))
        self._output_names = [port.name for port in self.outputs]

    def open_slot(self) -> _CompiledModel:
        return self  # a session's run() may be called from several threads at once

    def infer(
        self,
        arrays: Mapping[str, Array],
        memory: dict[str, Array] | None = None,
    ) -> dict[str, Array]:
        if memory is not None and all(array.dtype.kind not in "OSU" for array in arrays.values()):
            # A model may give other shapes than it says, which the library forgives below.
            with suppress(InferenceFailedError):
                return self._infer_into(arrays, memory)
        try:
            values = self._session.run(self._output_names, dict(arrays))
        except Exception as error:  # the library's errors derive from Exception itself
            raise self._failure(error) from error
        return {
            name: np.asarray(value) for name, value in zip(self._output_names, values, strict=True)
        }

    def _infer_into(
        self, arrays: Mapping[str, Array], memory: dict[str, Array]
    ) -> dict[str, Array]:
        try:
            binding = self._session.io_binding()
            for name, array in arrays.items():
                binding.bind_cpu_input(name, array)
            for name, array in memory.items():
                binding.bind_output(
                    name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
                )
            self._session.run_with_iobinding(binding)
        except Exception as error:  # the library's errors derive from Exception itself
            raise self._failure(error) from error
        return memory

    def specialise(self, signature: ShapeSignature) -> _CompiledModel:
        return self.with_sizes(dict(signature))

    def with_sizes(self, shapes: Mapping[str, Sequence[int]]) -> _CompiledModel:
        """Compile with the named dimensions of these inputs fixed; a size of -1 leaves one open."""
        sizes: dict[str, int] = {}
        for node in self._session.get_inputs():
            for dim, size in zip(node.shape, shapes.get(node.name, node.shape), strict=True):
                if not isinstance(dim, str) or not isinstance(size, int) or size < 0:
                    continue
                if sizes.setdefault(dim, size) != size:
                    raise InputShapeError(
                        node.name,
                        shapes[node.name],
                        [-1 if isinstance(dim, str) else dim for dim in node.shape],
                        f"dimension {dim!r} is also {sizes[dim]}",
                    )
        if not sizes:
            return self
        return _CompiledModel(
            self._files,
            self.device,
            self._provider,
            self._options,
            {**self._dimensions, **sizes},
        )

    def profile(self, arrays: Mapping[str, Array], runs: int) -> Profile:
        with tempfile.TemporaryDirectory(prefix="atriva-profile-") as folder:
            options = self._session_options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._create(options)
            transfer_us: list[float] = []
            inference_us: list[float] = []
            for index in range(runs + 1):
                started = time.perf_counter()
                try:
                    values = {
                        name: ort.OrtValue.ortvalue_from_numpy(array)
                        for name, array in arrays.items()
                    }
                    bound = time.perf_counter()
                    results = session.run_with_ort_values(self._output_names, values)
                except Exception as error:  # the library's errors derive from Exception itself
                    session.end_profiling()
                    raise self._failure(error) from error
                inferred = time.perf_counter()
                for result in results:
                    result.numpy()
                copied = time.perf_counter()
                if index > 0:  # the first run allocates and warms caches
                    transfer_us.append((bound - started + copied - inferred) * 1e6)
                    inference_us.append((inferred - bound) * 1e6)
            layers = _layers(Path(session.end_profiling()), runs + 1)
        return Profile.from_runs(self._files.name, self.device, layers, transfer_us, inference_us)

    def _input_port(self, node: ort.NodeArg) -> Port:
        port = self._port(node)
        return replace(port, layout=guess_image_layout(port.shape))

    def _port(self, node: ort.NodeArg) -> Port:
        kind = node.type.removeprefix("tensor(").removesuffix(")")
        if kind not in _DTYPES:
            reason = f"{node.name!r} is of type {node.type}, and only plain tensors can be passed"
            raise CompileError(str(self._files.path), self.device, {self.device: reason})
        # The library gives an empty shape both for a scalar and for an unknown rank.
        shape = tuple(dim if isinstance(dim, int) else -1 for dim in node.shape) or None
        return Port(node.name, (node.name,), np.dtype(_DTYPES[kind]), shape)

    def _failure(self, error: Exception) -> InferenceFailedError:
        return InferenceFailedError(
            self._files.name, ",".join(self.execution_devices), _reason(error)
        )

    def _open_session(self) -> tuple[ort.InferenceSession, tuple[str, ...]]:
        if self._provider == _CPU_PROVIDER:
            return self._create(self._session_options()), (self.device,)
        options = self._session_options()
        options.add_session_config_entry(_STRICT_PLACEMENT, "1")
        try:
            return self._create(options), (self.device,)
        except CompileError:
            # Some operators have no GPU kernel; then the CPU takes part, and we say so.
            return self._create(self._session_options()), (self.device, "CPU")

    def _create(self, options: ort.SessionOptions) -> ort.InferenceSession:
        provider: Any = self._provider
        if provider != _CPU_PROVIDER:
            index = self.device.partition(".")[2] or "0"
            provider = (provider, {"device_id": index} | self._provider_options())
        path = str(self._files.path)
        try:
            session = ort.InferenceSession(
                path, options, providers=[provider], enable_fallback=False
            )
        except _UNREADABLE as error:
            raise ModelUnreadableError(path, "onnxruntime", _reason(error)) from error
        except Exception as error:  # the library's errors derive from Exception itself
            raise CompileError(path, self.device, {self.device: _reason(error)}) from error
        if session.get_providers()[0] != self._provider:
            raise CompileError(
                path, self.device, {self.device: f"{self._provider} could not be initialised"}
            )
        return session

    def _session_options(self) -> ort.SessionOptions:
        options = ort.SessionOptions()
        options.log_severity_level = _LOG_FATAL_ONLY  # errors are raised, and not printed as well
        options.intra_op_num_threads = self._thread_count
        for name, size in self._dimensions.items():
            options.add_free_dimension_override_by_name(name, size)
        for key, value in self._options.config.items():
            if "." in key:
                options.add_session_config_entry(key, str(value))
            elif hasattr(options, key):
                _set_option(options, key, value)
            elif self._provider == _CPU_PROVIDER:
                raise OptionError(
                    "config",
                    key,
                    "an attribute of onnxruntime.SessionOptions or a "
                    "dotted session configuration key",
                )
        return options

    def _provider_options(self) -> dict[str, str]:
        return {
            key: str(value)
            for key, value in self._options.config.items()
            if "." not in key and not hasattr(ort.SessionOptions, key)
        }


def _set_option(options: ort.SessionOptions, key: str, value: object) -> None:
    try:
        setattr(options, key, value)
    except (TypeError, AttributeError) as error:
        example = getattr(options, key)
        raise OptionError("config", f"{key}={value}", f"a value like {example!r}") from error


def _parallelism(device: str, options: CompileOptions) -> tuple[int, int]:
    """Return (requests at once, threads of each)."""
    cores = options.thread_count or len(os.sched_getaffinity(0))
    if options.hint is PerformanceHint.LATENCY:
        return 1, cores
    if device != "CPU":
        return 2, 1  # one request computes while the other one's data moves
    slots = min(cores, _MAX_SLOTS)
    return slots, max(1, cores // slots)


def _nvidia_gpu_names() -> list[str]:
    """Ask the kernel driver, which answers without a CUDA context; honour CUDA_VISIBLE_DEVICES."""
    names = []
    for info in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        names.append(fields.get("Model", "NVIDIA GPU").strip())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return names
    return names[: len([entry for entry in visible.split(",") if entry.strip()])]


def _layers(profile: Path, runs: int) -> list[LayerProfile]:
    totals: dict[str, LayerProfile] = {}
    for event in json.loads(profile.read_text()):
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        layer = name.removesuffix("_kernel_time")
        before = totals[layer].time_us if layer in totals else 0.0
        details = event["args"]
        totals[layer] = LayerProfile(
            layer,
            details.get("op_name", ""),
            details.get("provider", ""),
            before + event["dur"] / runs,
        )
    return list(totals.values())


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


register_backend(OnnxRuntimeBackend.name, OnnxRuntimeBackend)
