"""The replica's side: threads that read requests, run them, and answer, one request at a time each.

There are as many threads as the device runs requests at once. One that has nothing to run waits for
the sockets (one at a time does) or for its turn to; whoever receives a request runs and answers it
itself, so that a request passes from one thread to another only when several came together. While
all threads run, nobody reads: requests wait in the sockets, and a client notices that by itself.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from atriva_inference.executor import Outputs
from atriva_inference.terms import USUAL
from atriva_ray.lanes import urgency
from atriva_ray.lanes.attention import Attention
from atriva_ray.lanes.busy import BusyTime
from atriva_ray.lanes.errors import FrameError
from atriva_ray.lanes.fair_queue import FairQueue
from atriva_ray.lanes.polling import poll_for
from atriva_ray.lanes.runner import Runner, run_one, submit_one
from atriva_ray.lanes.server_lane import Job, Ports, Result, ServerLane
from atriva_ray.lanes.server_sessions import ServerSessions
from atriva_ray.lanes.together import Together
from atriva_ray.lanes.wire import Wire
from atriva_ray.routing.activity import Activity
from atriva_ray.routing.batching import BatchingReport

__all__ = ["LaneServer"]

_logger = logging.getLogger(__name__)

_CLOSING = select.EPOLLHUP | select.EPOLLERR


class LaneServer:
    """Serves any number of lanes of one model."""

    def __init__(
        self, runner: Runner, ports: Ports, thread_count: int, together: Together | None = None
    ) -> None:
        """Start the threads.

        Args:
            runner: runs the requests.
            ports: the model's inputs and outputs.
            thread_count: requests to run at once.
            together: runs several requests as one; None runs each by itself.
        """
        self.busy = BusyTime()
        slot_count = None if together is None else together.slot_count
        self._slot_count = thread_count if slot_count is None else slot_count
        self._runner = runner
        self._ports = ports
        self._together = together
        self._sessions = ServerSessions(runner, ports.model)
        self._attention = Attention()
        self._activity: Activity[ServerLane] = Activity()
        self._turn = threading.Condition()
        self._queue: FairQueue[ServerLane, Job] = FairQueue()
        self._lanes: dict[int, ServerLane] = {}
        self._running = 0
        self._active = 0  # slots that run something, or are kept for what somebody waits for
        self._idle_count = 0
        self._has_reader = False
        self._is_closed = False
        self._epoll = select.epoll()
        self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._alarm, select.EPOLLIN)
        self._threads = [
            threading.Thread(target=self._serve, name=f"atriva-lane-{number}", daemon=True)
            for number in range(thread_count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queue_len(self) -> int:
        """Requests that wait or run."""
        return len(self._queue) + self._running

    @property
    def busy_s(self) -> float:
        """How long requests have run up to now, side by side or not."""
        with self._turn:
            return self.busy.total_s(time.monotonic())

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or runs, and every answer has left."""
        lanes = list(self._lanes.values())
        return self.queue_len == 0 and not any(lane.wire.unsent_bytes for lane in lanes)

    @property
    def lane_count(self) -> int:
        """Clients that are connected."""
        return len(self._lanes)

    def batching_report(self) -> BatchingReport | None:
        """Return what was learned about running requests together; None if they never do."""
        if self._together is None:
            return None
        with self._turn:
            return self._together.report()

    def add(self, wire: Wire) -> None:
        """Serve a connection whose client has proved itself."""
        lane = ServerLane(wire, self._ports)
        with self._turn:
            if self._is_closed:
                wire.close()
                return
            self._lanes[wire.fileno()] = lane
            self._epoll.register(wire.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Finish what runs, then close every lane and end the threads."""
        with self._turn:
            if self._is_closed:
                return
            self._is_closed = True
            self._turn.notify_all()
        os.eventfd_write(self._alarm, 1)
        for thread in self._threads:
            thread.join()
        for lane in list(self._lanes.values()):
            self._drop(lane, "the replica ends")
        self._epoll.close()
        os.close(self._alarm)

    # -- threads -------------------------------------------------------------------------------

    def _serve(self) -> None:
        while jobs := self._next():
            started_s = time.monotonic()
            is_measured = False
            try:
                is_measured = self._run(jobs)
            except Exception:
                _logger.exception("requests were lost with an error of the lane server itself")
                for job in jobs:
                    self._drop(job.lane, "an internal error")
            finally:
                self._finished(jobs, time.monotonic() - started_s if is_measured else None)
                del jobs  # and the memory it was in

    def _next(self) -> list[Job]:
        """Return what to run next; nothing at the end.

        Lanes are looked at before every job, so that whoever came meanwhile gets its turn.
        """
        while True:
            with self._turn:
                while self._has_reader and not self._can_take and not self._is_closed:
                    self._idle_count += 1
                    self._turn.wait()
                    self._idle_count -= 1
                if self._is_closed:
                    return []
                if self._has_reader:
                    return self._take()
                self._has_reader = True
                has_work = self._can_take
            try:
                self._read_lanes(self._epoll.poll(0) if has_work else self._events())
                if self._together is not None:
                    self._gather(self._together)
            finally:
                with self._turn:
                    self._has_reader = False
            with self._turn:
                if self._can_take and not self._is_closed:
                    return self._take()

    @property
    def _can_take(self) -> bool:
        return len(self._queue) > 0 and self._active < self._slot_count

    def _gather(self, together: Together) -> None:
        """Wait for more requests where that was seen to pay, if no other slot is free."""
        with self._turn:
            if not self._can_take or self._active + 1 < self._slot_count or self._is_closed:
                return
            wait = together.plan_wait(self._queue)
            if wait is None:
                return
            self._active += 1
        while not self._is_closed:
            with self._turn:
                left_s = together.left_s(wait, self._queue)
            if left_s <= 0:
                break
            self._read_lanes(poll_for(self._epoll, left_s))
        with self._turn:
            self._active -= 1
            together.waited(wait)

    def _take(self) -> list[Job]:
        together = self._together
        jobs = [self._queue.take()] if together is None else together.take(self._queue)
        self._running += len(jobs)
        self.busy.began(time.monotonic())
        self._active += 1
        if self._idle_count:
            self._turn.notify()  # somebody else is to read, or to run the next
        return jobs

    def _finished(self, jobs: Sequence[Job], service_time_s: float | None) -> None:
        with self._turn:
            if jobs[0].bound.signature is None:
                self.busy.ended(time.monotonic(), len(jobs))
            self._active -= 1
            if self._together is not None and service_time_s is not None:
                self._together.ran(jobs, service_time_s)
            for job in jobs:
                if job.bound.signature is None:  # the others are done when they are answered
                    self._done(job)

    # -- reading -------------------------------------------------------------------------------

    def _read_lanes(self, events: list[tuple[int, int]]) -> None:
        for descriptor, event in events:
            lane = self._lanes.get(descriptor)
            if lane is None:
                continue
            try:
                if event & select.EPOLLOUT:
                    lane.wire.flush()
                    self._resume(lane)
                if event & (select.EPOLLIN | _CLOSING):
                    self._read(lane, is_closing=bool(event & _CLOSING))
            except FrameError as error:
                _logger.warning("a lane was closed for what came on it: %s", error.reason)
                self._drop(lane, error.reason)
            except (EOFError, OSError) as error:
                self._drop(lane, str(error) or "the client is gone")
            except Exception as error:
                _logger.exception("a lane was closed with an error of the lane server itself")
                self._drop(lane, repr(error))

    def _events(self) -> list[tuple[int, int]]:
        """Block until something happens on a lane; stay awake for a moment where that pays.

        Only where one request runs at a time, as for the lowest latency: while others run, somebody
        who stays awake takes the processor from them.
        """
        events = self._epoll.poll(0)
        is_alone = len(self._threads) == 1
        while not events and is_alone and time.monotonic() < self._attention.awake_until_s:
            events = self._epoll.poll(0)
        events = events or self._epoll.poll()
        self._attention.arrived(time.monotonic())
        return events

    def _read(self, lane: ServerLane, *, is_closing: bool) -> None:
        with self._turn:
            if lane.is_full:
                if is_closing:
                    raise EOFError
                lane.is_paused = True
                self._watch(lane)
                return
        for job in lane.read():
            with self._turn:
                lane.accept(job)
                if not self._sessions.admit(job):
                    continue
                self._queue.put(lane, job, job.terms)
                self._activity.seen(lane, time.monotonic())
                if self._idle_count and len(self._queue) > 1:  # the first is for this thread
                    self._turn.notify()
        if lane.cancelled:
            self._give_up(lane)

    def _give_up(self, lane: ServerLane) -> None:
        """Answer what a client has cancelled, if it still waits."""
        numbers, lane.cancelled = set(lane.cancelled), []
        given_up = []
        with self._turn:
            jobs = self._sessions.remove(lane, numbers)
            while job := self._queue.remove(lane, partial(_is_one_of, numbers)):
                jobs.append(job)
                self._let_next(job)
            for job in jobs:
                lane.done(job)
                given_up.append(Result(job, None, urgency.cancelled(self._ports.model)))
        if given_up:
            self._answer(lane, given_up)

    def _resume(self, lane: ServerLane) -> None:
        """Read a lane again if it was paused and has room now."""
        with self._turn:
            lane.is_paused = lane.is_paused and lane.is_full
            self._watch(lane)

    def _watch(self, lane: ServerLane) -> None:
        with self._turn, suppress(OSError, ValueError):  # it was closed meanwhile
            events = 0 if lane.is_paused else select.EPOLLIN
            if lane.wire.unsent_bytes:
                events |= select.EPOLLOUT
            self._epoll.modify(lane.wire.fileno(), events)

    def _drop(self, lane: ServerLane, reason: str) -> None:
        with self._turn:
            descriptor = lane.wire.fileno()
            if descriptor < 0 or self._lanes.get(descriptor) is not lane:
                return
            del self._lanes[descriptor]
            self._queue.drop(lane)
            self._sessions.forget(lane)
            self._activity.forget(lane)
            with suppress(OSError):
                self._epoll.unregister(descriptor)
        lane.close()
        self._sessions.close(lane)
        _logger.debug("a lane was closed: %s", reason)

    # -- running -------------------------------------------------------------------------------

    def _run(self, jobs: list[Job]) -> bool:
        """Run and answer; return whether the time that it took says something of other requests."""
        count = len(jobs)
        if any(job.terms is not USUAL for job in jobs):
            jobs = self._without_late(jobs)
            if not jobs:
                return False
        if len(jobs) > 1 and self._together is not None:
            results = self._together.run(self._runner, jobs)
            by_lane: dict[ServerLane, list[Result]] = {}
            for result in results:
                by_lane.setdefault(result.job.lane, []).append(result)
            for lane, some in by_lane.items():
                self._answer(lane, some)
            return len(jobs) == count and all(result.error is None for result in results)
        (job,) = jobs
        if job.bound.signature is not None:  # it may have to be compiled first, which takes long
            done = submit_one(self._runner, job)
            done.add_done_callback(partial(self._answer_later, job))
            return False
        result = self._sessions.run(job) if job.session else run_one(self._runner, job)
        self._answer(job.lane, [result])
        return result.error is None and not job.session

    def _without_late(self, jobs: list[Job]) -> list[Job]:
        """Refuse those whose time is over, and return the others."""
        late = [jobs[index] for index in urgency.late_ones([job.terms for job in jobs])]
        for job in late:
            error = urgency.too_late(self._ports.model, job.terms)
            self._answer(job.lane, [Result(job, None, error)])
            if job.bound.signature is not None:  # the others are done when `_run` returns
                with self._turn:
                    self._done(job)
        return [job for job in jobs if job not in late]

    def _answer(self, lane: ServerLane, results: Sequence[Result]) -> None:
        now_s = time.monotonic()
        with self._turn:
            if not lane.is_closed:
                self._activity.seen(lane, now_s)
            others = self._activity.others(lane, now_s)
        wanted = 1 if self._together is None else self._together.wanted
        try:
            left = max(0, self.queue_len - len(results))
            if not lane.answer(results, left, others, wanted):
                self._watch(lane)
            self._attention.answered(time.monotonic())
            self.busy.took(results[-1].service_time_s)
        except OSError as error:
            self._drop(lane, str(error))

    def _answer_later(self, job: Job, done: Future[Outputs]) -> None:
        error = done.exception()
        outputs = None if error is not None else done.result()
        try:
            self._answer(job.lane, [Result(job, outputs, error)])
        except Exception:
            _logger.exception("a request was lost with an error of the lane server itself")
            self._drop(job.lane, "an internal error")
        with self._turn:
            self.busy.ended(time.monotonic())
            self._done(job)

    def _done(self, job: Job) -> None:
        self._running -= 1
        job.lane.done(job)
        self._let_next(job)
        if job.lane.is_paused:
            self._resume(job.lane)

    def _let_next(self, job: Job) -> None:
        """Queue what waits for a job of the same session."""
        if job.session and (waiting := self._sessions.after(job)) is not None:
            self._queue.put(waiting.lane, waiting, waiting.terms)
            if self._idle_count:
                self._turn.notify()


def _is_one_of(numbers: set[int], job: Job) -> bool:
    """Whether a job is a request of these numbers; what is done with a session stays."""
    return job.request in numbers and job.call is None
