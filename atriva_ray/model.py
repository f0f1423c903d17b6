"""`Model` over a cluster: the in-process face, and what only a cluster has to tell."""

from __future__ import annotations

from atriva_inference.model import Model as LocalModel
from atriva_ray.dispatch import Dispatcher, ReplicaUse

__all__ = ["Model"]


class Model(LocalModel):
    """A model that is loaded on replicas of the cluster, maybe shared with other programs.

    Inputs are fitted to the model in this process. `close` releases this program's use; the
    replicas end when nobody uses them any more.
    """

    def __init__(self, name: str, dispatcher: Dispatcher) -> None:
        super().__init__(name, dispatcher)
        self._dispatcher = dispatcher

    @property
    def key(self) -> str:
        """What the router knows the model by; ``router.infer`` takes it as well as the name."""
        return self._dispatcher.key

    @property
    def replicas(self) -> tuple[ReplicaUse, ...]:
        """The replicas in use: ``node/device``, slots, and requests of this program answered."""
        return self._dispatcher.replicas
