"""``config.pbtxt``: what a Triton model configuration asks for, as far as it can be honoured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from atriva_inference.errors import OptionError
from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository.pbtxt import Message, parse_text_format
from atriva_ray.serve.repository.settings import ModelSettings
from atriva_ray.serve.repository.tree import printable

__all__ = ["CONFIG_NAME", "TritonConfig", "parse_triton"]

CONFIG_NAME = "config.pbtxt"

_BACKENDS = {
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
    "onnxruntime_onnx": "onnxruntime",
    "tensorflow": "openvino",
    "tensorflow_graphdef": "openvino",
    "tensorflow_savedmodel": "openvino",
}
_ACCELERATORS = {"tensorrt": "tensorrt", "openvino": "openvino"}
_TENSOR_FIELDS = {"name", "data_type", "dims", "label_filename"}
"""All but the labels is what the model itself says of its tensors, so it is not read."""

_DEFAULTS = ("", "0", "false", "FORMAT_NONE")
_OPENVINO_PROPERTIES = {
    "AFFINITY",
    "CACHE_DIR",
    "ENABLE_CPU_PINNING",
    "ENABLE_HYPER_THREADING",
    "EXECUTION_MODE_HINT",
    "INFERENCE_NUM_THREADS",
    "INFERENCE_PRECISION_HINT",
    "MODEL_PRIORITY",
    "NUM_STREAMS",
    "PERFORMANCE_HINT_NUM_REQUESTS",
    "SCHEDULING_CORE_TYPE",
}
_ONNXRUNTIME_PROPERTIES = {
    "execution_mode": "execution_mode",
    "inter_op_thread_count": "inter_op_num_threads",
    "intra_op_thread_count": "intra_op_num_threads",
}


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """What a model configuration says.

    Attributes:
        settings: what it asks for.
        default_name: name of the model in a version's folder; empty for the usual one.
        warnings: what it asks for and does not get.
    """

    settings: ModelSettings
    default_name: str
    warnings: tuple[str, ...]


def parse_triton(
    text: str, path: str, name: str, read_labels: Callable[[str], tuple[str, ...]]
) -> TritonConfig:
    """Read a ``config.pbtxt``.

    Args:
        text: the document.
        path: where it is from, for messages.
        name: name of the model's folder.
        read_labels: reads a file of labels, by the path in the document.

    Raises:
        RepositoryError: it cannot be read, or the model is of a kind that cannot be served.
    """
    root = parse_text_format(text, path)
    _check_servable(root, path)
    reader = _Reader(root, path)
    try:
        reader.read(name, read_labels)
        settings = replace(ModelSettings(), **reader.values)
    except OptionError as error:
        raise RepositoryError(path, str(error)) from error
    warnings = tuple(f"{path}: {warning}" for warning in reader.warnings)
    return TritonConfig(settings, root.word("default_model_filename"), warnings)


def _check_servable(root: Message, path: str) -> None:
    kind = root.word("backend") or root.word("platform")
    if root.messages("ensemble_scheduling") or kind == "ensemble":
        raise RepositoryError(path, "it is an ensemble of models; call them one after the other")
    if kind and kind not in _BACKENDS:
        raise RepositoryError(
            path,
            f"no model of backend or platform {printable(kind)!r} can be run here; "
            f"there are {', '.join(_BACKENDS)}",
        )
    if root.messages("sequence_batching"):
        raise RepositoryError(path, "it keeps state between requests (sequence_batching)")
    if root.message("model_transaction_policy").word("decoupled") in ("true", "True", "t", "1"):
        raise RepositoryError(path, "it gives any number of answers to a request (decoupled)")


@dataclass(slots=True)
class _Reader:
    """Goes through a configuration once, and notes what is honoured and what is not."""

    root: Message
    path: str
    values: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def read(self, name: str, read_labels: Callable[[str], tuple[str, ...]]) -> None:
        declared = self.root.word("name")
        if declared and declared != name:
            self.warnings.append(
                f"it calls the model {printable(declared)!r}; it is served by its folder's name"
            )
        self._read_backend()
        self._read_batching()
        self._read_instances()
        self._read_tensors(read_labels)
        self._read_versions()
        self._read_parameters()
        self._ignored("", self.root, _FIELDS)

    def _read_backend(self) -> None:
        kind = self.root.word("backend") or self.root.word("platform")
        backend = _BACKENDS.get(kind, "openvino")
        if kind.startswith("tensorflow"):
            self.warnings.append("TensorFlow models are run by OpenVINO")
        optimization = self.root.message("optimization")
        self._ignored("optimization.", optimization, {"execution_accelerators"})
        accelerators = optimization.message("execution_accelerators")
        for where in ("gpu_execution_accelerator", "cpu_execution_accelerator"):
            for each in accelerators.messages(where):
                accelerator = each.word("name")
                if backend == "onnxruntime" and accelerator in _ACCELERATORS:
                    backend = _ACCELERATORS[accelerator]
                elif accelerator != backend:
                    self._warn(f"the accelerator {printable(accelerator)!r}")
                if each.messages("parameters"):
                    self._warn(f"the parameters of the accelerator {printable(accelerator)!r}")
        self.values["backend"] = backend

    def _read_batching(self) -> None:
        if "max_batch_size" in self.root.fields:
            size = self._number(self.root, "max_batch_size")
            self.values |= {"max_batch_size": size} if size > 0 else {"batching": "off"}
        batching = self.root.message("dynamic_batching")
        self._ignored("dynamic_batching.", batching, {"default_queue_policy"})
        policy = batching.message("default_queue_policy")
        self._ignored("dynamic_batching.default_queue_policy.", policy, {"max_queue_size"})
        if waiting := self._number(policy, "max_queue_size"):
            self.values["max_waiting"] = waiting

    def _read_instances(self) -> None:
        devices: list[str] = []
        count = 0
        groups = self.root.messages("instance_group")
        for group in groups:
            kind = group.word("kind", "KIND_AUTO")
            gpus = group.words("gpus")
            if kind == "KIND_GPU" or (kind == "KIND_AUTO" and gpus):
                found = [f"GPU.{gpu}" for gpu in gpus] or ["GPU"]
            elif kind == "KIND_CPU":
                found = ["CPU"]
            else:
                found = []
                if kind != "KIND_AUTO":
                    self._warn(f"instance_group kind {printable(kind)}")
            devices += found
            count += self._number(group, "count") * max(1, len(found))
            self._ignored("instance_group.", group, {"name", "kind", "count", "gpus"})
        if len(groups) > 1:
            self._warn("how many instances of which instance_group, beyond their sum,")
        if devices:
            unique = list(dict.fromkeys(devices))
            self.values["device"] = unique[0] if len(unique) == 1 else f"AUTO:{','.join(unique)}"
        if count:
            self.values["replicas"] = count

    def _read_tensors(self, read_labels: Callable[[str], tuple[str, ...]]) -> None:
        labels = {}
        for side in ("input", "output"):
            for tensor in self.root.messages(side):
                name = tensor.word("name")
                self._ignored(f"{side} {printable(name)!r} ", tensor, _TENSOR_FIELDS)
                file = tensor.word("label_filename")
                if file and side == "output":
                    labels[name] = read_labels(file)
        if labels:
            self.values["labels"] = labels

    def _read_versions(self) -> None:
        policy = self.root.message("version_policy")
        self._ignored("version_policy.", policy, {"latest", "all", "specific"})
        if policy.messages("all"):
            self.values["versions"] = "all"
        elif policy.messages("specific"):
            words = policy.message("specific").words("versions")
            self.values["versions"] = [self._whole(word, "versions") for word in words]
        elif policy.messages("latest"):
            count = self._number(policy.message("latest"), "num_versions")
            self.values["versions"] = {"latest": count or 1}

    def _read_parameters(self) -> None:
        config: dict[str, Any] = {}
        backend = self.values["backend"]
        for parameter in self.root.messages("parameters"):
            key = parameter.word("key")
            value = parameter.message("value").word("string_value")
            if backend == "openvino" and key == "TARGET_DEVICE":
                self.values["device"] = value
            elif backend == "openvino" and key == "PERFORMANCE_HINT":
                self.values["hint"] = value
            elif backend == "openvino" and key in _OPENVINO_PROPERTIES:
                config[key] = value
            elif backend == "onnxruntime" and key in _ONNXRUNTIME_PROPERTIES:
                config[_ONNXRUNTIME_PROPERTIES[key]] = self._whole(value, key)
            else:
                self._warn(f"the parameter {printable(key)!r}")
        if config:
            self.values["config"] = config

    def _number(self, message: Message, name: str) -> int:
        return self._whole(message.word(name, "0"), name)

    def _whole(self, word: str, name: str) -> int:
        try:
            return int(word, 0)
        except ValueError:
            reason = f"{name}: {printable(word)!r} is no whole number"
            raise RepositoryError(self.path, reason) from None

    def _ignored(self, where: str, message: Message, known: Iterable[str]) -> None:
        """Warn of the fields that nothing here reads, unless they say what holds anyway."""
        for name in message.fields:
            if name not in known and (message.messages(name) or self._is_wish(message, name)):
                self._warn(f"{where}{printable(name)}")

    def _is_wish(self, message: Message, name: str) -> bool:
        return any(word not in _DEFAULTS for word in message.words(name))

    def _warn(self, what: str) -> None:
        self.warnings.append(f"{what} is not honoured")


_FIELDS = {
    "backend",
    "default_model_filename",
    "dynamic_batching",
    "ensemble_scheduling",
    "input",
    "instance_group",
    "max_batch_size",
    "model_transaction_policy",
    "name",
    "optimization",
    "output",
    "parameters",
    "platform",
    "version_policy",
}
