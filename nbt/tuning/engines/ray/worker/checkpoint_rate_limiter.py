"""A rate limit on the checkpoints that a worker sends, which bounds the traffic of all workers together."""

from __future__ import annotations


class CheckpointRateLimiter:
    """Limits the mean rate at which a worker sends checkpoints to the driver.

    Each trial writes a checkpoint every half minute, and those of a thousand trials would exceed the network's and the
    driver's capacity. A checkpoint that is not sent costs nothing unless the worker is lost: its trial then repeats the
    epochs since the last checkpoint that was sent.

    Args:
        bytes_per_second: Maximum rate of this worker, above 0.
        phase: Delay of the first checkpoint as a share of its interval, 0 ... 1, so that workers that start together
            do not send together.
    """

    def __init__(self, bytes_per_second: float, phase: float = 0.0) -> None:
        self._rate, self._phase = bytes_per_second, phase
        self._next_send: float | None = None

    def try_acquire(self, size: int, now: float) -> bool:
        """Returns whether a checkpoint may be sent now, and if so, counts it.

        Args:
            size: Size of the checkpoint, in bytes.
            now: Time of `time.monotonic`, in seconds.
        """
        interval = size / self._rate
        if self._next_send is None:
            self._next_send = now + self._phase * interval
        if now < self._next_send:
            return False
        self._next_send = now + interval
        return True
