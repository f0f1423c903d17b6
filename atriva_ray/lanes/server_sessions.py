"""The sessions of a replica: each belongs to the lane that opened it, and ends with it."""

from __future__ import annotations

from collections import defaultdict, deque
from threading import Lock
from typing import TYPE_CHECKING

from atriva_inference.errors import SessionLostError
from atriva_inference.state import State, check_state
from atriva_ray.lanes.runner import Runner, SessionRunner, run_one
from atriva_ray.lanes.server_lane import Job, Result, ServerLane
from atriva_ray.lanes.session_frames import SessionCall, SessionOp

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["ServerSessions"]


class ServerSessions:
    """Runs what is asked of sessions.

    `admit`, `after` and `forget` order the jobs of each session; call them under the server's lock.
    """

    def __init__(self, runner: Runner, model: str) -> None:
        self._runner = runner
        self._model = model
        self._lock = Lock()
        self._sessions: defaultdict[ServerLane, dict[int, SessionRunner]] = defaultdict(dict)
        self._behind: dict[tuple[ServerLane, int], deque[Job]] = {}

    # -- one by one ----------------------------------------------------------------------------

    def admit(self, job: Job) -> bool:
        """Whether a job may be queued now; one whose session is busy comes out of `after` later."""
        if not job.session:
            return True
        key = (job.lane, job.session)
        behind = self._behind.get(key)
        if behind is None:
            self._behind[key] = deque()
            return True
        behind.append(job)
        return False

    def after(self, job: Job) -> Job | None:
        """Return what may be queued now that a job is done."""
        key = (job.lane, job.session)
        behind = self._behind.get(key)
        if behind:
            return behind.popleft()
        self._behind.pop(key, None)
        return None

    def remove(self, lane: ServerLane, numbers: Collection[int]) -> list[Job]:
        """Take out requests of these numbers that wait behind others of their sessions."""
        removed = []
        for key, behind in self._behind.items():
            if key[0] is lane:
                some = [job for job in behind if job.request in numbers and job.call is None]
                removed += some
                for job in some:
                    behind.remove(job)
        return removed

    def forget(self, lane: ServerLane) -> None:
        """Drop what waits of a lane."""
        for key in [key for key in self._behind if key[0] is lane]:
            del self._behind[key]

    # -- running -------------------------------------------------------------------------------

    def run(self, job: Job) -> Result:
        """Run a request of a session, or do something with one."""
        try:
            if job.call is None:
                return run_one(self._found(job), job)
            return Result(job, self._done(job, job.call), None)
        except Exception as error:  # noqa: BLE001 - whatever it is, its caller is told
            return Result(job, None, error)

    def close(self, lane: ServerLane) -> None:
        """End the sessions of a lane that is closed, without waiting for what runs in them."""
        with self._lock:
            sessions = self._sessions.pop(lane, {})
        for session in sessions.values():
            session.abandon()

    def _done(self, job: Job, call: SessionCall) -> State:
        if call.op is SessionOp.OPEN:
            self._open(job)
            return {}
        session = self._found(job)
        match call.op:
            case SessionOp.CLOSE:
                with self._lock:
                    self._sessions[job.lane].pop(job.session, None)
                session.close()
            case SessionOp.RESET:
                session.reset()
            case SessionOp.GET:
                return session.state()
            case SessionOp.SET:
                session.set_state(check_state(self._runner.variables, call.state or {}))
        return {}

    def _open(self, job: Job) -> None:
        if job.session in self._of(job.lane):
            raise self._lost(job, "it is open already")
        session = self._runner.open_session(job.session)
        with self._lock:
            is_wanted = (
                not job.lane.is_closed
            )  # else `close` of its lane is over, or will not see it
            if is_wanted:
                self._sessions[job.lane][job.session] = session
        if not is_wanted:
            session.close()

    def _found(self, job: Job) -> SessionRunner:
        session = self._of(job.lane).get(job.session)
        if session is None:
            raise self._lost(job, "it is not known there")
        return session

    def _lost(self, job: Job, reason: str) -> SessionLostError:
        return SessionLostError(
            self._model, job.session, "its replica", reason, "create a new session"
        )

    def _of(self, lane: ServerLane) -> Mapping[int, SessionRunner]:
        with self._lock:
            return dict(self._sessions.get(lane, {}))
