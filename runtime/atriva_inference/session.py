"""`Session`: requests that build on each other, through a model that remembers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from atriva_inference.answer import AnswerFuture, awaited
from atriva_inference.errors import ClosedError, OptionError
from atriva_inference.state import State, check_state

if TYPE_CHECKING:
    import numpy.typing as npt

    from atriva_inference.binding import BoundInputs, Inputs
    from atriva_inference.ports import Port
    from atriva_inference.tensor import Array, Tensor

__all__ = ["Session", "SessionExecutor"]

Value = TypeVar("Value")


class SessionExecutor(Protocol):
    """Runs the requests of one session; thread-safe, and in the order of the calls."""

    @property
    def number(self) -> int:
        """What it is called in messages."""
        ...

    def run(self, bound: BoundInputs) -> dict[str, Array]:
        """Run one request and block until its answer is there."""
        ...

    def submit(
        self, bound: BoundInputs, wrap: Callable[[dict[str, Array]], Value]
    ) -> AnswerFuture[Value]:
        """Queue one request."""
        ...

    def state(self) -> State:
        """Return copies of the values that are not initial ones."""
        ...

    def set_state(self, state: State) -> None:
        """Give variables values that were checked."""
        ...

    def reset(self) -> None:
        """Give all variables their initial values."""
        ...

    def close(self) -> None:
        """Finish what runs, refuse what waits; safe to call again."""
        ...


class Session:
    """A model with a memory of its own. Thread-safe; close it, or use it as a context manager.

    What is asked of a session is done one by one, in the order of the calls. Sessions have nothing
    to do with each other, nor with requests to the model itself. A model without variables has
    sessions too; they have nothing to remember.

    On a cluster a session stays on the replica where it began. If that replica dies or is taken
    away, so is what it remembered, and every call but `close` raises SessionLostError.
    """

    def __init__(
        self,
        model_name: str,
        variables: tuple[Port, ...],
        executor: SessionExecutor,
        bind: Callable[[Inputs], BoundInputs],
        wrap: Callable[[dict[str, Array]], dict[str, Tensor]],
    ) -> None:
        self._model_name = model_name
        self._variables = variables
        self._executor = executor
        self._bind_inputs = bind
        self._wrap = wrap
        self._is_closed = False

    @property
    def number(self) -> int:
        """What messages call it; unique among the sessions of this `Model`."""
        return self._executor.number

    def run(self, inputs: Inputs) -> dict[str, Tensor]:
        """Run one request and block for its answer.

        Raises:
            InputError: names, shapes or element types do not fit; the state is as it was.
            InferenceFailedError: the backend failed. Of a model with state nobody knows then what
                it remembers, and every further call raises SessionLostError, until `reset`.
            SessionLostError: what it remembered is gone.
            OptionError: a tensor has a `shape_override`; a session has the model as it was loaded.
            ClosedError: the session or the model is closed.
        """
        return self._wrap(self._executor.run(self._bind(inputs)))

    def submit(self, inputs: Inputs) -> AnswerFuture[dict[str, Tensor]]:
        """Queue one request and return at once.

        Args:
            inputs: arrays that must not change until the future is done.

        Returns:
            A future whose result is what `run` returns, and whose exception is what it raises.
            Cancelling it works until the request begins to run; the session goes on without it.
        """
        return self._executor.submit(self._bind(inputs), self._wrap)

    async def run_async(self, inputs: Inputs) -> dict[str, Tensor]:
        """Run one request without blocking the event loop; raises what `run` raises."""
        return await awaited(self.submit(inputs))

    @property
    def state(self) -> State:
        """Copies of what it remembers, by variable name; blocks until what runs has been answered.

        Variables that still have their initial values are left out, as backends do not tell these:
        the state of a new session is empty.

        Raises:
            SessionLostError: what it remembered is gone.
            InferenceFailedError: the backend cannot tell a value.
            ClosedError: the session or the model is closed.
        """
        self._check_open()
        return self._executor.state()

    def set_state(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Give variables values, which are copied; blocks until what runs has been answered.

        After `reset`, giving it what `state` returned has it remember the same again, also in
        another session of the model, here or on another device.

        Args:
            state: arrays by variable name, of the variable's dtype and shape; variables that are
                not named keep what they have.

        Raises:
            StateError: a name, dtype or shape is wrong; nothing was changed.
            SessionLostError: what it remembered is gone.
            ClosedError: the session or the model is closed.
        """
        self._check_open()
        self._executor.set_state(check_state(self._variables, state))

    def reset(self) -> None:
        """Give all variables their initial values; blocks until what runs has been answered.

        Raises:
            SessionLostError: its replica is gone.
            ClosedError: the session or the model is closed.
        """
        self._check_open()
        self._executor.reset()

    def close(self) -> None:
        """Finish what runs, refuse what waits, and forget; safe to call again."""
        self._is_closed = True
        self._executor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = " closed" if self._is_closed else ""
        return f"<Session {self.number} of {self._model_name!r}{state}>"

    def _bind(self, inputs: Inputs) -> BoundInputs:
        self._check_open()
        bound = self._bind_inputs(inputs)
        if bound.signature is not None:
            raise OptionError(
                "shape_override",
                str([shape for _, shape in bound.signature]),
                "none in a session, which has the model as it was loaded",
            )
        return bound

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError(f"session {self.number} of model {self._model_name!r}")
