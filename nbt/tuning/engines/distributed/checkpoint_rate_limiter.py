"""CheckpointRateLimiter: how often a worker sends checkpoints, so that what all of them send together is bounded."""

from __future__ import annotations


class CheckpointRateLimiter:
    """Lets as many bytes through as a worker's share of the driver's time is worth.

    A trial writes a checkpoint every half minute. Those of two trials are nothing to a driver, those of a thousand are
    more than any network brings it. What is not sent is not lost to a trial that goes on; only one whose worker dies
    trains again what came after the last checkpoint that was.

    Args:
        bytes_per_second: This worker's share, above 0.
        phase: 0 ... 1, the share of the first wait: workers that begin together do not send together.
    """

    def __init__(self, bytes_per_second: float, phase: float = 0.0) -> None:
        self._rate, self._phase = bytes_per_second, phase
        self._next_send: float | None = None

    def try_acquire(self, size: int, now: float) -> bool:
        """Tells whether so many bytes may be sent now, and counts them if so.

        Args:
            size: In bytes.
            now: In seconds, `time.monotonic`.
        """
        wait = size / self._rate
        if self._next_send is None:
            self._next_send = now + self._phase * wait
        if now < self._next_send:
            return False
        self._next_send = now + wait
        return True
