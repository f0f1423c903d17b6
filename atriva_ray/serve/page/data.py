"""What the page shows."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ModelCard", "PageData"]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One version of a model.

    Attributes:
        name: the model's; whoever put it there chose it, so it may hold anything.
        version: empty if it has none.
        state: ``READY``, ``LOADING``, ``UNLOADING`` or ``UNAVAILABLE``.
        devices: where it runs, ``node-1/CPU`` for example.
        inputs: one line each, ``image FP32 [1, 3, 224, 224]`` for example.
        outputs: likewise.
        takes_pictures: whether `infer-image` works with it.
        reason: why it is not ready.
    """

    name: str
    version: str
    state: str
    devices: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    takes_pictures: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PageData:
    """A server at one moment.

    Attributes:
        server_name: as ``GET /v2`` tells it.
        version: the server's.
        models: in the order in which they are shown.
        devices: all devices, whether a model is on them or not.
        wants_token: whether requests need a token; the page then asks for one.
        is_locked: whether the reader has not shown a token yet. Give neither models nor devices
            then: the page gets itself again, with the token, and takes over what has come.
        address: of the server in the examples, where the browser does not know better.
    """

    server_name: str
    version: str
    models: tuple[ModelCard, ...] = ()
    devices: tuple[str, ...] = ()
    wants_token: bool = False
    is_locked: bool = False
    address: str = "http://localhost:8000"
