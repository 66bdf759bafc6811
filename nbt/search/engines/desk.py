"""Desk: where Ray Tune's thread asks and the caller's thread answers. It knows no Ray."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from typing import Any

from nbt.search.engines.books import Answer
from nbt.search.engines.messages import Order, Said


class Closed(Exception):  # noqa: N818 - an end, not an error
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


class Desk:
    """Where Tune's thread asks and the caller's thread answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._requests: list[Request] = []
        self._closed = False
        self._running: set[str] = set()
        self._given_up: set[str] = set()

    def next_order(self, attempt: str) -> Order | None:
        """Returns what an attempt runs."""
        if self._closed:
            raise Closed
        order: Order | None = self._ask("order", attempt)
        if self._closed:
            raise Closed
        if order is not None:
            with self._lock:
                self._running.add(attempt)
        return order

    def hear(self, attempt: str, said: Said) -> Answer:
        """Takes what an attempt says."""
        answer: Answer = self._ask("hear", attempt, said) or Answer(over=True)
        if answer.over:
            self._forget(attempt)
        return answer

    def lose(self, attempt: str, reason: str, node_lost: bool) -> None:
        """Takes the end of an attempt's worker."""
        self._forget(attempt)
        self._ask("lose", attempt, reason, node_lost)

    def take_given_up(self, attempts: list[str]) -> list[str]:
        """Returns those of the running attempts that nobody wants any more."""
        with self._lock:
            found = [attempt for attempt in attempts if attempt in self._given_up]
            self._given_up.difference_update(found)
        return found

    def give_up_running(self) -> None:
        """Marks what runs as unwanted, and lets Tune's thread go on to find out."""
        with self._lock:
            self._given_up |= self._running
            self._running.clear()
            waiting = [request for request in self._requests if request.kind in ("hear", "lose")]
            self._requests = [request for request in self._requests if request not in waiting]
        for request in waiting:
            request.reply(None)

    def post(self, request: Request) -> None:
        """Puts a request on the desk and rings."""
        with self._lock:
            if self._closed:
                request.reply(None)
                return
            self._requests.append(request)
        self._bell.set()

    def put_back(self, request: Request) -> None:
        """Keeps a request for later."""
        request.answered = True
        with self._lock:
            self._requests.insert(0, request)

    def wait(self) -> None:
        """Waits until something lies on the desk. An interrupt here loses nothing."""
        with self._lock:
            if self._requests:
                return
            self._bell.clear()
        self._bell.wait()

    def take(self) -> Request | None:
        """Returns the oldest request, if there is one."""
        with self._lock:
            return self._requests.pop(0) if self._requests else None

    def close(self) -> None:
        """Answers all that is and will be asked with the end."""
        with self._lock:
            self._closed = True
            waiting, self._requests = self._requests, []
            self._given_up |= self._running
        for request in waiting:
            request.reply(None)

    def _ask(self, kind: str, *arguments: Any) -> Any:
        request = Request(kind, arguments)
        self.post(request)
        return request.result()

    def _forget(self, attempt: str) -> None:
        with self._lock:
            self._running.discard(attempt)
            self._given_up.discard(attempt)
