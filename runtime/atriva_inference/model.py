"""`Model`: the face of a loaded model, the same in one process and over a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from atriva_inference.answer import AnswerFuture, awaited
from atriva_inference.binding import BoundInputs, Inputs, Staging, bind_inputs
from atriva_inference.errors import ClosedError, OptionError
from atriva_inference.request import AsyncRequest
from atriva_inference.session import Session
from atriva_inference.stream import Stream
from atriva_inference.tensor import Tensor

if TYPE_CHECKING:
    from atriva_inference.executor import Executor, Outputs
    from atriva_inference.ports import Port
    from atriva_inference.profiling import Profile
    from atriva_inference.shape_cache import ShapeCacheInfo

__all__ = ["Model"]


class Model:
    """A loaded model. Thread-safe; close it, or use it as a context manager.

    Every request stands alone, also where the model has variables: these have their initial values
    then. Requests that build on each other are those of one `Session`.

    Inputs are dicts of input name (any of the port's names) → `Tensor` or numpy array. Results are
    dicts of output name → `Tensor` in fresh memory that stays valid.
    """

    def __init__(self, name: str, executor: Executor) -> None:
        self._name = name
        self._executor = executor
        self._is_closed = False

    @property
    def name(self) -> str:
        """The name that the model was loaded under."""
        return self._name

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What the model takes; -1 stands for a dynamic dimension."""
        return self._executor.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What the model gives."""
        return self._executor.outputs

    @property
    def variables(self) -> tuple[Port, ...]:
        """What a session of the model remembers from one request to the next; often nothing."""
        return self._executor.variables

    @property
    def device(self) -> str:
        """The device that the model was really compiled for, never the expression asked for."""
        return self._executor.device

    @property
    def execution_devices(self) -> tuple[str, ...]:
        """The devices that really execute, as the backend reports them."""
        return self._executor.execution_devices

    @property
    def parallelism(self) -> int:
        """How many requests run at once; further ones wait."""
        return self._executor.parallelism

    @property
    def shape_cache(self) -> ShapeCacheInfo:
        """Hits, misses and size of the cache of models compiled for one shape."""
        return self._executor.shape_cache_info()

    def run(self, inputs: Inputs) -> dict[str, Tensor]:
        """Run one request and block for its answer.

        Raises:
            InputError: names, shapes or element types do not fit.
            InferenceFailedError: the backend failed on these inputs.
            ClosedError: the model is closed.
        """
        return self._wrap(self._executor.run(self._bind(inputs, None)))

    def run_staged(self, inputs: Inputs, staging: Staging) -> dict[str, Tensor]:
        """Like `run`, converting into `staging`; for one thread at a time per staging."""
        return self._wrap(self._executor.run(self._bind(inputs, staging)))

    def submit(
        self, inputs: Inputs, staging: Staging | None = None
    ) -> AnswerFuture[dict[str, Tensor]]:
        """Queue one request and return at once.

        Args:
            inputs: arrays that must not change until the future is done.
            staging: memory to convert into, also not to be used again until then.

        Returns:
            A future whose result is what `run` returns, and whose exception is what it raises.
            Cancelling it works until the request begins to run.
        """
        return self._executor.submit(self._bind(inputs, staging), self._wrap)

    async def run_async(self, inputs: Inputs) -> dict[str, Tensor]:
        """Run one request without blocking the event loop; raises what `run` raises.

        Inputs are checked and converted on the event loop's thread before the first await.
        """
        return await awaited(self.submit(inputs))

    def create_async_request(
        self, callback: Callable[[AsyncRequest], None] | None = None
    ) -> AsyncRequest:
        """Return a request to `start` and `wait` for; any number may exist.

        Args:
            callback: called with the request when it is done, on a thread of the runtime. It
                should return soon, and may start the request again.
        """
        self._check_open()
        return AsyncRequest(self, callback)

    def create_stream(self) -> Stream:
        """Return a stream, the fast way for many inputs one after the other."""
        self._check_open()
        return Stream(self)

    def create_session(self) -> Session:
        """Return a session, in which the model remembers one request in the next.

        Each has an infer request of its own, beside the `parallelism` ones. One process, and each
        replica of a cluster, may have 256 of a model; ``ATRIVA_MAX_SESSIONS`` sets another limit.

        Raises:
            TooManySessionsError: there are as many already, on a cluster: on every replica.
            ClosedError: the model is closed.
        """
        self._check_open()
        return Session(
            self._name,
            self.variables,
            self._executor.open_session(),
            lambda inputs: self._bind(inputs, None),
            self._wrap,
        )

    def get_profiling(self, inputs: Inputs | None = None, runs: int = 10) -> Profile:
        """Measure where the time of one inference goes; compiles a profiled twin, so it is slow.

        Args:
            inputs: what to run on; ones, with 1 for every dynamic dimension, when None.
            runs: how many inferences to average over, after one warm-up.

        Raises:
            OptionError: `runs` is less than 1.
            InputError: the inputs do not fit.
            InferenceFailedError: the backend failed on these inputs.
            ClosedError: the model is closed.
        """
        if runs < 1:
            raise OptionError("runs", str(runs), "at least 1")
        bound = None if inputs is None else self._bind(inputs, None)
        return self._executor.profile(bound, runs)

    def close(self) -> None:
        """Finish what runs, refuse what waits, and free the model; safe to call again."""
        self._is_closed = True
        self._executor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"on {self.device}"
        ports = ", ".join(str(port) for port in self.inputs)
        return f"<Model {self._name!r} {state}: {ports}>"

    def _bind(self, inputs: Inputs, staging: Staging | None) -> BoundInputs:
        self._check_open()
        if staging is None:
            return bind_inputs(self.inputs, inputs)
        return bind_inputs(self.inputs, inputs, staging.allocate)

    def _wrap(self, outputs: Outputs) -> dict[str, Tensor]:
        return {
            port.name: Tensor(outputs[port.name], port.layout)
            for port in self.outputs
            if port.name in outputs
        }

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError(f"model {self._name!r}")
