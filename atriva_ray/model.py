"""`Model` over a cluster: the in-process face, and what only a cluster has to tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atriva_inference.model import Model as LocalModel
from atriva_ray.dispatch import Dispatcher, ReplicaUse
from atriva_ray.model_store import ModelSource
from atriva_ray.routing.messages import ModelRequest

if TYPE_CHECKING:
    import ray

    from atriva_ray.batch.outputs import TopK

__all__ = ["Model", "ModelOrigin"]


@dataclass(frozen=True, slots=True)
class ModelOrigin:
    """What a model was loaded as; it may be sent to other programs of the cluster.

    Attributes:
        request: what the router was asked for.
        source: which files.
        namespace: of the router that has it.
    """

    request: ModelRequest
    source: ModelSource
    namespace: str


class Model(LocalModel):
    """A model that is loaded on replicas of the cluster, maybe shared with other programs.

    Inputs are fitted to the model in this process. `close` releases this program's use; the
    replicas end when nobody uses them any more.
    """

    def __init__(self, name: str, dispatcher: Dispatcher, origin: ModelOrigin) -> None:
        super().__init__(name, dispatcher)
        self._dispatcher = dispatcher
        self._origin = origin

    @property
    def origin(self) -> ModelOrigin:
        """What it was loaded as; `InferenceRuntime.open_model` takes it in another program."""
        return self._origin

    @property
    def key(self) -> str:
        """What the router knows the model by; ``router.infer`` takes it as well as the name."""
        return self._dispatcher.key

    @property
    def is_loaded(self) -> bool:
        """Whether it takes requests: it is not closed, nor was it unloaded or its router lost."""
        return self._dispatcher.is_open

    @property
    def waiting(self) -> int:
        """Requests of this program that are under way or wait for a replica."""
        return self._dispatcher.waiting

    @property
    def service_time_s(self) -> float:
        """How long devices have run requests of this program, all in all, side by side or not."""
        return self._dispatcher.service_time_s

    def predict(
        self,
        dataset: ray.data.Dataset,
        *,
        columns: Mapping[str, str] | None = None,
        batch_size: int | str = "auto",
        top_k: TopK | int | None = None,
        labels: Sequence[str] = (),
    ) -> ray.data.Dataset:
        """Add the model's answers to a Ray Data set, lazily; it goes on with Ray Data's operators.

        Rows go straight from the processes of Ray Data to the replicas, on every node; the columns
        they have are kept. The model must stay open until the data set was consumed. Load it with
        ``reserve_cpus=False`` where Ray Data is to read on the same processors.

        Args:
            dataset: one row per sample.
            columns: which column feeds which input, by input name; None: the one of that name, or
                the only one that can.
            batch_size: rows per request; ``auto`` is 1 unless the model's batch dimension is
                dynamic.
            top_k: add ``class``, ``score`` and the best entries instead of all of an output.
            labels: names of those entries.

        Raises:
            OptionError: an option does not fit the model.
            ClusterError: no processor is left for Ray Data. What is wrong with a row is raised
                when the data set is consumed, by Ray Data, with our error as the cause.
        """
        from atriva_ray.batch.predict import predict  # noqa: PLC0415 - needs Ray Data

        return predict(
            self, dataset, columns=columns, batch_size=batch_size, top_k=top_k, labels=labels
        )

    @property
    def replicas(self) -> tuple[ReplicaUse, ...]:
        """The replicas in use: ``node/device``, slots, and requests of this program answered."""
        return self._dispatcher.replicas
