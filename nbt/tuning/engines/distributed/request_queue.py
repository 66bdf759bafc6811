"""RequestQueue: where Ray Tune's thread asks and the caller's thread answers. It knows no Ray."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from typing import Any

from nbt.tuning.engines.distributed.protocol import TrialAssignment, WorkerMessage
from nbt.tuning.engines.distributed.supervisor import RunDecision


class EngineClosed(Exception):  # noqa: N818 - an end, not an error
    """The engine is closed."""


@dataclass(eq=False)
class Request:
    """What Tune's thread wants to know; `reply` lets it go on."""

    kind: str
    arguments: tuple[Any, ...]
    answered: bool = False
    _answers: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)

    def reply(self, answer: Any) -> None:
        """Answers."""
        self.answered = True
        self._answers.put(answer)

    def result(self) -> Any:
        """Waits for the answer and returns it."""
        return self._answers.get()


class RequestQueue:
    """Where Tune's thread asks and the caller's thread answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._available = threading.Event()
        self._requests: list[Request] = []
        self._closed = False
        self._running: set[str] = set()
        self._abandoned: set[str] = set()

    def next_assignment(self, attempt: str) -> TrialAssignment | None:
        """Returns what an attempt runs."""
        if self._closed:
            raise EngineClosed
        assignment: TrialAssignment | None = self._request_and_wait("assignment", attempt)
        if self._closed:
            raise EngineClosed
        if assignment is not None:
            with self._lock:
                self._running.add(attempt)
        return assignment

    def handle_message(self, attempt: str, message: WorkerMessage) -> RunDecision:
        """Takes what an attempt says."""
        answer: RunDecision = self._request_and_wait("handle_message", attempt, message) or RunDecision(finished=True)
        if answer.finished:
            self._discard(attempt)
        return answer

    def handle_worker_lost(self, attempt: str, reason: str, node_lost: bool) -> None:
        """Takes the end of an attempt's worker."""
        self._discard(attempt)
        self._request_and_wait("handle_worker_lost", attempt, reason, node_lost)

    def pop_abandoned(self, attempts: list[str]) -> list[str]:
        """Returns those of the running attempts that nobody wants any more."""
        with self._lock:
            found = [attempt for attempt in attempts if attempt in self._abandoned]
            self._abandoned.difference_update(found)
        return found

    def abandon_running(self) -> None:
        """Marks what runs as unwanted, and lets Tune's thread go on to find out."""
        with self._lock:
            self._abandoned |= self._running
            self._running.clear()
            waiting = [
                request for request in self._requests if request.kind in ("handle_message", "handle_worker_lost")
            ]
            self._requests = [request for request in self._requests if request not in waiting]
        for request in waiting:
            request.reply(None)

    def put(self, request: Request) -> None:
        """Puts a request on the request_queue and rings."""
        with self._lock:
            if self._closed:
                request.reply(None)
                return
            self._requests.append(request)
        self._available.set()

    def requeue_once(self, request: Request) -> None:
        """Keeps a request for later."""
        request.answered = True
        with self._lock:
            self._requests.insert(0, request)

    def wait(self) -> None:
        """Waits until something lies on the request_queue. An interrupt here loses nothing."""
        with self._lock:
            if self._requests:
                return
            self._available.clear()
        self._available.wait()

    def take(self) -> Request | None:
        """Returns the oldest request, if there is one."""
        with self._lock:
            return self._requests.pop(0) if self._requests else None

    def close(self) -> None:
        """Answers all that is and will be asked with the end."""
        with self._lock:
            self._closed = True
            waiting, self._requests = self._requests, []
            self._abandoned |= self._running
        for request in waiting:
            request.reply(None)

    def _request_and_wait(self, kind: str, *arguments: Any) -> Any:
        request = Request(kind, arguments)
        self.put(request)
        return request.result()

    def _discard(self, attempt: str) -> None:
        with self._lock:
            self._running.discard(attempt)
            self._abandoned.discard(attempt)
