"""Models on the network: the Open Inference Protocol over HTTP and gRPC, on Ray Serve.

``atriva serve`` starts a server; so do ``serve run atriva_ray.serve:app models=model.onnx`` and
Serve files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atriva_ray.serve.application import app
    from atriva_ray.serve.settings import ServeSettings

__all__ = ["ServeSettings", "app"]


def __getattr__(name: str) -> Any:
    """Import what needs Ray Serve only when it is asked for: most modules here do not."""
    if name == "app":
        from atriva_ray.serve.application import app  # noqa: PLC0415

        return app
    if name == "ServeSettings":
        from atriva_ray.serve.settings import ServeSettings  # noqa: PLC0415

        return ServeSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
