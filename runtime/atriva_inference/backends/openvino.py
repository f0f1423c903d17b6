"""OpenVINO: CPU, GPU, NPU and whatever other plug-ins a node has."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import openvino as ov

from atriva_inference.backend import register_backend
from atriva_inference.backends.openvino_model import (
    input_ports,
    output_ports,
    variable_ports,
    with_numpy_types,
    with_preprocessing,
)
from atriva_inference.backends.openvino_session import OpenVinoSessionSlot
from atriva_inference.backends.openvino_slot import OpenVinoSlot, copy_outputs
from atriva_inference.binding import ShapeSignature
from atriva_inference.device import Device, DeviceSpec, Selection
from atriva_inference.errors import (
    CompileError,
    InferenceFailedError,
    InputShapeError,
    ModelUnreadableError,
    OptionError,
)
from atriva_inference.model_files import ModelFiles
from atriva_inference.options import CompileOptions, PerformanceHint
from atriva_inference.profiling import LayerProfile, Profile
from atriva_inference.tensor import Array

__all__ = ["PLUGINS_VARIABLE", "OpenVinoBackend"]

PLUGINS_VARIABLE = "ATRIVA_OPENVINO_PLUGINS"
"""Environment variable that registers further plug-ins: ``NAME=library,NAME=library``."""


# These belong to OpenVINO's core: every device takes them, and none lists them.
_CORE_PROPERTIES = (
    "ALLOW_AUTO_BATCHING",
    "AUTO_BATCH_TIMEOUT",
    "CACHE_DIR",
    "CACHE_ENCRYPTION_CALLBACKS",
    "CACHE_MODE",
    "DEVICE_PROPERTIES",
    "ENABLE_MMAP",
)


class OpenVinoBackend:
    """One OpenVINO core."""

    name = "openvino"

    def __init__(self) -> None:
        self._core = ov.Core()
        for entry in filter(None, os.environ.get(PLUGINS_VARIABLE, "").split(",")):
            device, separator, library = entry.partition("=")
            if not separator or not device.strip() or not library.strip():
                raise OptionError(PLUGINS_VARIABLE, entry, "NAME=library, separated by commas")
            try:
                self._core.register_plugin(library.strip(), device.strip())
            except RuntimeError as error:
                raise OptionError(
                    PLUGINS_VARIABLE, entry, f"a new name: {_reason(error)}"
                ) from error

    def devices(self) -> list[Device]:
        """Probe every registered plug-in; one that cannot be loaded here has no devices."""
        return [self._describe(name) for name in self._core.available_devices]

    def expand(
        self, spec: DeviceSpec, devices: Sequence[Device], options: CompileOptions
    ) -> list[str]:
        """Return OpenVINO device strings; candidates that work together become one string."""
        names = [device.name for device in devices]
        together = ",".join(names)
        if spec.selection is Selection.BATCH:
            return [f"BATCH:{spec.candidates[0]}"]
        if spec.selection in (Selection.MULTI, Selection.HETERO):
            return [f"{spec.selection}:{together}"]
        if options.hint is PerformanceHint.CUMULATIVE_THROUGHPUT and len(names) > 1:
            return [f"AUTO:{together}"]
        return names

    def compile(self, files: ModelFiles, device: str, options: CompileOptions) -> _CompiledModel:
        """Read and compile; a change of the files after this goes unnoticed."""
        model = self._read(files, device)
        if options.preprocessing is not None:
            try:
                model = with_preprocessing(model, options.preprocessing)
            except RuntimeError as error:
                reason = f"preprocessing cannot be built into it: {_reason(error)}"
                raise CompileError(str(files.path), device, {device: reason}) from error
        return _CompiledModel(self._core, files, model, device, options)

    def _read(self, files: ModelFiles, device: str) -> ov.Model:
        try:
            return with_numpy_types(self._core.read_model(str(files.path)))
        except Exception as error:  # the frontends raise RuntimeError and types of their own
            if "No conversion rule found" in str(error):  # a sound model with an unknown operator
                raise CompileError(str(files.path), device, {device: _reason(error)}) from error
            raise ModelUnreadableError(str(files.path), self.name, _reason(error)) from error

    def _describe(self, name: str) -> Device:
        return Device(
            name,
            full_name=str(self._property(name, "FULL_DEVICE_NAME", "")),
            capabilities=tuple(self._property(name, "OPTIMIZATION_CAPABILITIES", ())),
            is_discrete="DISCRETE" in str(self._property(name, "DEVICE_TYPE", "")).upper(),
            memory_bytes=self._property(name, "GPU_DEVICE_TOTAL_MEM_SIZE", None),
        )

    def _property(self, device: str, key: str, default: Any) -> Any:
        try:
            return self._core.get_property(device, key)
        except RuntimeError:  # the plug-in does not know this property
            return default


class _CompiledModel:
    def __init__(
        self,
        core: ov.Core,
        files: ModelFiles,
        model: ov.Model,
        device: str,
        options: CompileOptions,
    ) -> None:
        self._core = core
        self._files = files
        self._model = model
        self._options = options
        self._lock = threading.Lock()
        self._compiled: ov.CompiledModel | None = self._compile_again(device)
        self.device = device
        self.inputs = input_ports(model)
        self.outputs = output_ports(model)
        self.variables = variable_ports(model)
        # Text cannot be shared, and asking for it makes OpenVINO print a warning.
        self.gives_text = any(port.dtype.kind == "U" for port in self.outputs)
        self.execution_devices = _execution_devices(self._compiled)
        self.slot_count = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def open_slot(self) -> OpenVinoSlot:
        return OpenVinoSlot(self)

    def open_session_slot(self) -> OpenVinoSessionSlot:
        return OpenVinoSessionSlot(self)

    def sound(self) -> ov.CompiledModel:
        """Return a compilation in which no inference has failed, made anew where one has.

        After a failure OpenVINO keeps half of the failed request's shapes: the CPU plug-in then
        refuses good inputs, or answers bad ones with what it computed last.
        """
        with self._lock:
            if self._compiled is None:
                self._compiled = self._compile_again(self.device)
            return self._compiled

    def is_sound(self, compiled: ov.CompiledModel) -> bool:
        """Whether no inference has failed in this compilation."""
        return self._compiled is compiled

    def discard(self, compiled: ov.CompiledModel) -> bool:
        """Use a compilation no more; return whether it was sound until now."""
        with self._lock:
            if self._compiled is not compiled:
                return False
            self._compiled = None
            return True

    def specialise(self, signature: ShapeSignature) -> _CompiledModel:
        model = self._model.clone()
        shapes = dict(signature)
        try:
            model.reshape(
                {
                    index: ov.PartialShape(list(shapes[port.name]))
                    for index, port in enumerate(self.inputs)
                }
            )
        except RuntimeError as error:
            port = next(port for port in self.inputs if port.is_dynamic)
            raise InputShapeError(
                port.name, shapes[port.name], port.shape or (), _reason(error)
            ) from error
        return _CompiledModel(self._core, self._files, model, self.device, self._options)

    def profile(self, arrays: Mapping[str, Array], runs: int) -> Profile:
        properties = _properties(self.device, self._options) | {
            "PERFORMANCE_HINT": "LATENCY",
            "PERF_COUNT": True,
        }
        twin = self._compile(self._model, properties, self.device)
        request = twin.create_infer_request()
        transfer_us: list[float] = []
        inference_us: list[float] = []
        totals: dict[str, LayerProfile] = {}
        for index in range(runs + 1):
            started = time.perf_counter()
            for number, port in enumerate(self.inputs):
                request.set_input_tensor(number, ov.Tensor(arrays[port.name]))
            bound = time.perf_counter()
            try:
                request.infer(share_outputs=not self.gives_text)
            except RuntimeError as error:
                raise self.failure(error) from error
            inferred = time.perf_counter()
            copy_outputs(request, self.outputs)
            copied = time.perf_counter()
            if index == 0:  # the first run allocates and warms caches
                continue
            transfer_us.append((bound - started + copied - inferred) * 1e6)
            inference_us.append((inferred - bound) * 1e6)
            _add_layers(totals, request.profiling_info, runs)
        return Profile.from_runs(
            self._files.name, self.device, list(totals.values()), transfer_us, inference_us
        )

    def failure(self, error: Exception) -> InferenceFailedError:
        return InferenceFailedError(
            self._files.name, ",".join(self.execution_devices), _reason(error)
        )

    def _compile_again(self, device: str) -> ov.CompiledModel:
        return self._compile(self._model, _properties(device, self._options), device)

    def _compile(
        self, model: ov.Model, properties: dict[str, Any], device: str
    ) -> ov.CompiledModel:
        self._check_config(device)
        try:
            compiled = self._core.compile_model(model, device, properties)
            if _runs_on_one_thread_of_its_own(compiled):
                # There (seen in 2026.4), an inference whose shapes turn out impossible crashes the
                # process, or passes for one that worked. Without streams it runs on the thread that
                # asks: still one thread, and as fast, and it raises.
                on_callers_thread = properties | {"NUM_STREAMS": 0}
                compiled = self._core.compile_model(model, device, on_callers_thread)
        except RuntimeError as error:
            self._blame_config(model, device, error)
            raise CompileError(str(self._files.path), device, {device: _reason(error)}) from error
        return compiled

    def _check_config(self, device: str) -> None:
        """Refuse unknown properties, which AUTO, MULTI and HETERO would ignore."""
        if not self._options.config:
            return
        head, _, members = device.partition(":")
        known = set(_CORE_PROPERTIES)
        for name in (head, *filter(None, members.split(","))):
            known.update(self._core.get_property(name.partition("(")[0], "SUPPORTED_PROPERTIES"))
        for key in self._options.config:
            if key not in known:
                choices = f"properties of {device}: {', '.join(sorted(known))}"
                raise OptionError("config", key, choices)

    def _blame_config(self, model: ov.Model, device: str, error: RuntimeError) -> None:
        """Raise OptionError if the model compiles with nothing but the config left out."""
        config = self._options.config
        if not config:
            return
        try:
            self._core.compile_model(model, device, {})
        except RuntimeError:
            return
        given = ", ".join(f"{key}={value}" for key, value in config.items())
        raise OptionError(
            "config", given, f"values that {device} takes: {_reason(error)}"
        ) from error


def _add_layers(
    totals: dict[str, LayerProfile], infos: Iterable[ov.ProfilingInfo], runs: int
) -> None:
    for info in infos:
        if info.status != ov.ProfilingInfo.Status.EXECUTED:
            continue
        before = totals[info.node_name].time_us if info.node_name in totals else 0.0
        time_us = before + info.real_time.total_seconds() * 1e6 / runs
        totals[info.node_name] = LayerProfile(
            info.node_name, info.node_type, info.exec_type, time_us
        )


def _properties(device: str, options: CompileOptions) -> dict[str, Any]:
    hint = options.hint
    if hint is PerformanceHint.CUMULATIVE_THROUGHPUT and not device.startswith(("AUTO", "MULTI")):
        hint = PerformanceHint.THROUGHPUT  # on one device the two are the same thing
    properties: dict[str, Any] = {"PERFORMANCE_HINT": str(hint)}
    if options.thread_count is not None and ":" not in device and "CPU" in device:
        properties["INFERENCE_NUM_THREADS"] = options.thread_count
        if options.thread_count == 1:
            properties["NUM_STREAMS"] = 0  # see _CompiledModel._compile
    return properties | dict(options.config)


def _runs_on_one_thread_of_its_own(compiled: ov.CompiledModel) -> bool:
    try:
        streams = int(compiled.get_property("NUM_STREAMS"))
        return streams == 1 and int(compiled.get_property("INFERENCE_NUM_THREADS")) == 1
    except RuntimeError:  # not the processor
        return False


def _execution_devices(compiled: ov.CompiledModel) -> tuple[str, ...]:
    devices = compiled.get_property("EXECUTION_DEVICES")
    return (devices,) if isinstance(devices, str) else tuple(devices)


def _reason(error: Exception) -> str:
    """Return the last informative line: OpenVINO puts source locations before what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Exception from ")]
    return " ".join(telling or lines)[:500] or type(error).__name__


register_backend(OpenVinoBackend.name, OpenVinoBackend)
