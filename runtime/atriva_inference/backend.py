"""The seam to the inference libraries: what a backend must offer, and the table of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, runtime_checkable

from atriva_inference.binding import ShapeSignature
from atriva_inference.device import Device, DeviceSpec
from atriva_inference.errors import BackendNotInstalledError, UnknownBackendError
from atriva_inference.model_files import ModelFiles
from atriva_inference.options import CompileOptions
from atriva_inference.ports import Port
from atriva_inference.profiling import Profile
from atriva_inference.state import State
from atriva_inference.tensor import Array

__all__ = [
    "Backend",
    "CompiledModel",
    "SessionSlot",
    "Slot",
    "StatefulModel",
    "backend_names",
    "make_backend",
    "register_backend",
]


class Slot(Protocol):
    """One infer request of a compiled model; for one thread at a time."""

    def infer(
        self, arrays: Mapping[str, Array], memory: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        """Run the model and block until it has answered, without holding the GIL meanwhile.

        Args:
            arrays: fitted inputs by port name. They are only read, and only until this returns.
            memory: an array for each output, of its dtype and its static shape. A library that can
                write into them does so; what they hold when this raises is undefined.

        Returns:
            Arrays by output name: `memory` itself if the outputs were written there, else fresh
            ones, owned by the caller.

        Raises:
            InferenceFailedError: the library failed.
        """
        ...


class CompiledModel(Protocol):
    """A model compiled for one device (or for one composite like ``HETERO:GPU,CPU``)."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What the model takes."""
        ...

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What the model gives."""
        ...

    @property
    def device(self) -> str:
        """The device that was compiled for."""
        ...

    @property
    def execution_devices(self) -> tuple[str, ...]:
        """The devices that really execute, as the library reports them."""
        ...

    @property
    def slot_count(self) -> int:
        """How many requests the device runs at once with these options."""
        ...

    def open_slot(self) -> Slot:
        """Return a further infer request; at most `slot_count` of them are useful."""
        ...

    def specialise(self, signature: ShapeSignature) -> CompiledModel:
        """Compile the same model for exactly these input shapes."""
        ...

    def profile(self, arrays: Mapping[str, Array], runs: int) -> Profile:
        """Run a profiled twin of the model on the inputs; slow, as it compiles."""
        ...


class SessionSlot(Slot, Protocol):
    """An infer request whose variables keep their values from one `infer` to the next.

    After an `infer` that failed, its values may be anything; `reset` is what is called next.
    """

    def state(self) -> State:
        """Return copies of the variables' values, without those that have their initial one."""
        ...

    def set_state(self, state: State) -> None:
        """Give variables values that fit them; the others keep theirs."""
        ...

    def reset(self) -> None:
        """Give all variables their initial values."""
        ...


@runtime_checkable
class StatefulModel(Protocol):
    """What a `CompiledModel` also has if its library knows models with state.

    A slot of `CompiledModel.open_slot` gives the variables their initial values before each
    `infer`: such requests have nothing to do with each other.
    """

    @property
    def variables(self) -> tuple[Port, ...]:
        """What this model remembers, by variable; empty for a model without state."""
        ...

    def open_session_slot(self) -> SessionSlot:
        """Return a further infer request, with variables of its own."""
        ...


class Backend(Protocol):
    """An inference library."""

    @property
    def name(self) -> str:
        """The name it is registered under."""
        ...

    def devices(self) -> list[Device]:
        """Return the devices that are really there, in no particular order."""
        ...

    def expand(
        self, spec: DeviceSpec, devices: Sequence[Device], options: CompileOptions
    ) -> list[str]:
        """Return what `compile` is to be tried with, in order.

        Args:
            spec: what the user asked for.
            devices: what `spec` chose among the present devices, the most preferred first.
            options: the hint decides whether candidates are used together.
        """
        ...

    def compile(self, files: ModelFiles, device: str, options: CompileOptions) -> CompiledModel:
        """Compile for one device, with ``options.preprocessing`` built in.

        A library that has nothing for it uses `backends.preprocessed.PreprocessedModel`.

        Raises:
            ModelUnreadableError: the files are no model this backend can read.
            CompileError: the device refuses the model; another device may take it.
            OptionError: `config` has a property that the device does not know, or the preprocessing
                does not fit the model.
        """
        ...


ENTRY_POINT_GROUP = "atriva_inference.backends"
"""Installed packages offer backends here: the name, and a callable without arguments."""

_factories: dict[str, Callable[[], Backend]] = {}
_BUILT_IN = ("openvino", "onnxruntime", "tensorrt")


def register_backend(name: str, factory: Callable[[], Backend]) -> None:
    """Make a backend available as ``InferenceRuntime(backend=name)``, in this process.

    On a cluster every node must know it: install a package there that has an entry point in the
    group ``atriva_inference.backends``.

    Args:
        name: lower-case name.
        factory: called once per runtime; raises BackendNotInstalledError where its library is
            missing.
    """
    _factories[name] = factory


def backend_names() -> tuple[str, ...]:
    """Return the registered backends' names, whether or not their libraries are installed."""
    return tuple(dict.fromkeys((*_BUILT_IN, *_factories, *_offered())))


@cache
def _offered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def make_backend(name: str) -> Backend:
    """Return a backend by name, importing its library now.

    Raises:
        UnknownBackendError: no such name is registered.
        BackendNotInstalledError: its library is missing.
    """
    if name in _BUILT_IN and name not in _factories:
        try:
            importlib.import_module(f"atriva_inference.backends.{name}")
        except ModuleNotFoundError as error:
            library = str(error.name)
            raise BackendNotInstalledError(
                name, f"the library {library!r}", f"pip install {library}"
            ) from error
    elif isinstance(name, str) and name not in _factories and name in _offered():
        _factories[name] = _offered()[name].load()
    if not isinstance(name, str) or name not in _factories:
        raise UnknownBackendError(str(name), backend_names())
    return _factories[name]()
