"""The queue of requests from Ray Tune's thread to the caller's thread; independent of Ray."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from nbt.tuning.engines.protocol import TrialAssignment, WorkerMessage
from nbt.tuning.engines.supervisor import RunDecision


class EngineClosed(Exception):  # noqa: N818 - an end, not an error
    """The engine is closed."""


@dataclass(eq=False)
class Request:
    """A request from Tune's thread, which waits for the reply.

    Attributes:
        kind: Kind of the request: "assignment", "message", "worker_lost", "connection_lost" or "tune_ended".
        arguments: Arguments of the request.
        reply: The reply, once it is known.
    """

    kind: str
    arguments: tuple[Any, ...]
    reply: Future[Any] = field(default_factory=Future)


class RequestQueue:
    """Thread-safe queue of requests; Tune's thread waits for the caller's thread to reply."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._available = threading.Event()
        self._requests: list[Request] = []
        self._closed = False
        self._running: set[str] = set()
        self._abandoned: set[str] = set()

    def request_assignment(self, attempt: str) -> TrialAssignment | None:
        """Returns the trial that an attempt is to run, or None when there is none at the moment.

        Raises:
            EngineClosed: The engine is closed.
        """
        assignment: TrialAssignment | None = self._request_and_wait("assignment", attempt)
        if self._closed:
            raise EngineClosed
        if assignment is not None:
            with self._lock:
                self._running.add(attempt)
        return assignment

    def forward_message(self, attempt: str, message: WorkerMessage) -> RunDecision:
        """Forwards a message of an attempt's worker; returns how the attempt proceeds."""
        decision: RunDecision = self._request_and_wait("message", attempt, message) or RunDecision(finished=True)
        if decision.finished:
            self._discard(attempt)
        return decision

    def report_worker_lost(self, attempt: str, reason: str, *, node_lost: bool) -> None:
        """Reports that an attempt has lost its worker."""
        self._discard(attempt)
        self._request_and_wait("worker_lost", attempt, reason, node_lost)

    def pop_abandoned(self, attempts: list[str]) -> list[str]:
        """Returns those of the given attempts that were abandoned, each once."""
        with self._lock:
            abandoned = [attempt for attempt in attempts if attempt in self._abandoned]
            self._abandoned.difference_update(abandoned)
        return abandoned

    def abandon_running(self) -> None:
        """Marks the running attempts as abandoned and releases Tune's thread if it waits for a decision on one."""
        with self._lock:
            self._abandoned |= self._running
            self._running.clear()
            waiting = [request for request in self._requests if request.kind in ("message", "worker_lost")]
            self._requests = [request for request in self._requests if request not in waiting]
        for request in waiting:
            request.reply.set_result(None)

    def put(self, request: Request) -> None:
        """Adds a request and wakes the thread in `wait`."""
        with self._lock:
            if self._closed:
                request.reply.set_result(None)
                return
            self._requests.append(request)
        self._available.set()

    def requeue(self, request: Request) -> None:
        """Puts a request back at the front of the queue, to be answered later."""
        with self._lock:
            self._requests.insert(0, request)

    def wait(self) -> None:
        """Waits until the queue has a request. An interrupt during the wait loses no request."""
        with self._lock:
            if self._requests:
                return
            self._available.clear()
        self._available.wait()

    def get_nowait(self) -> Request | None:
        """Removes and returns the oldest request, or returns None without one."""
        with self._lock:
            return self._requests.pop(0) if self._requests else None

    def close(self) -> None:
        """Closes the queue: all pending and future requests receive None, and the attempts are abandoned."""
        with self._lock:
            self._closed = True
            waiting, self._requests = self._requests, []
            self._abandoned |= self._running
        for request in waiting:
            request.reply.set_result(None)

    def _request_and_wait(self, kind: str, *arguments: Any) -> Any:
        request = Request(kind, arguments)
        self.put(request)
        return request.reply.result()

    def _discard(self, attempt: str) -> None:
        with self._lock:
            self._running.discard(attempt)
            self._abandoned.discard(attempt)
