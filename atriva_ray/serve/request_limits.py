"""How much a client may ask for, and how slowly."""

from __future__ import annotations

from dataclasses import dataclass, fields

from atriva_inference.errors import OptionError

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes; all of them positive.

    Bodies that are under way fill at most ``max_requests * max_body_bytes``.

    Attributes:
        max_body_bytes: of a body, both as it travels and unpacked.
        max_json_bytes: of the JSON in front of binary tensors, which is parsed at once.
        max_idle_s: how long a client may send nothing while its body is not whole.
        body_grace_s: how long a body may take, whatever its size.
        min_body_bytes_per_s: how fast it must come on top of that: 1 s more for that many bytes.
        max_requests: how many requests with a body are under way at once.
        retry_after_s: when those beyond that are told to come again.
        linger_s: how long a client is listened to that still sends what was refused already.
    """

    max_body_bytes: int = 64 << 20
    max_json_bytes: int = 16 << 20
    max_idle_s: float = 10.0
    body_grace_s: float = 30.0
    min_body_bytes_per_s: float = 65_536.0
    max_requests: int = 256
    retry_after_s: float = 1.0
    linger_s: float = 1.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not value > 0:
                raise OptionError(each.name, str(value), "a positive number")
