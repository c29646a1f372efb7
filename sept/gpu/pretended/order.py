"""Ordering of work: streams, events and the host of a simulated device (vector clocks).

Work runs synchronously on the CPU, so nothing races here. The check is whether it could on a card: every piece of work
is the n-th of its stream, and each stream and the host know up to which piece every stream is done.
"""

import threading
import time
from typing import Any, ClassVar

HOST = -1  # as an index next to those of streams
DEFAULT = 0  # index of the default stream

Mark = tuple[int, int]  # a piece of work: its stream, and its 1-based number there


class Unordered(RuntimeError):
    """Memory is used by one stream, or by the host, while another may still be using it."""


class Clock:
    """Completed work as known to each stream and to the host: dictionaries from stream to number of pieces.

    What the host has waited for is known to all work that it launches afterwards. All host threads share one state.
    """

    def __init__(self) -> None:
        self.launched = {DEFAULT: 0}
        self.known: dict[int, dict[int, int]] = {HOST: {}, DEFAULT: {}}
        self._here = threading.local()

    @property
    def stream(self) -> int:
        """The stream that this thread launches work on."""
        return getattr(self._here, "stream", DEFAULT)

    @stream.setter
    def stream(self, number: int) -> None:
        self._here.stream = number

    def add_stream(self) -> int:
        number = len(self.launched)
        self.launched[number], self.known[number] = 0, {}
        return number

    def launch(self) -> Mark:
        """One more piece of work on the current stream."""
        self.launched[self.stream] += 1
        return self.stream, self.launched[self.stream]

    def done(self, mark: Mark | None, by: int) -> bool:
        """Whether `by` may assume that piece to be done: within a stream, earlier work always is."""
        if mark is None or mark[0] == by:
            return True
        stream, number = mark
        return max(self.known[by].get(stream, 0), self.known[HOST].get(stream, 0)) >= number

    def state(self, stream: int) -> dict[int, int]:
        """What is known to be done once all work now on `stream` is done."""
        found = dict(self.known[HOST])
        for other, number in self.known[stream].items():
            found[other] = max(found.get(other, 0), number)
        return found | {stream: self.launched[stream]}

    def learn(self, by: int, state: dict[int, int]) -> None:
        """From now on `by` knows what `state` says."""
        known = self.known[by]
        for stream, number in state.items():
            known[stream] = max(known.get(stream, 0), number)

    def wait(self, stream: int | None = None) -> None:
        """The host waits for the current or the given stream."""
        self.learn(HOST, self.state(self.stream if stream is None else stream))

    def wait_for_all(self) -> None:
        for stream in self.launched:
            self.wait(stream)


class Event:
    """torch.cuda.Event."""

    clock: ClassVar[Clock]

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self.timed = enable_timing
        self._state: dict[int, int] = {}
        self._at: float | None = None

    def record(self, stream: "Stream | None" = None) -> None:
        self._state = self.clock.state(self.clock.stream if stream is None else stream.number)
        self._at = time.perf_counter()

    def wait(self, stream: "Stream | None" = None) -> None:
        self.clock.learn(self.clock.stream if stream is None else stream.number, self._state)

    def synchronize(self) -> None:
        self.clock.learn(HOST, self._state)

    def query(self) -> bool:
        """True, as work is done when launched; the caller then knows it."""
        self.synchronize()
        return True

    def elapsed_time(self, later: "Event") -> float:
        """Milliseconds of the host between the two records. Raises RuntimeError for events that are not timed."""
        if not (self.timed and later.timed) or self._at is None or later._at is None:
            raise RuntimeError("both events must be recorded with enable_timing=True before their times are compared")
        return 1000 * (later._at - self._at)


class Stream:
    """torch.cuda.Stream; `number` is that of an existing one."""

    clock: ClassVar[Clock]
    event_type: ClassVar[type[Event]]

    def __init__(self, device: Any = None, priority: int = 0, *, number: int | None = None) -> None:
        self.number, self.priority = self.clock.add_stream() if number is None else number, priority
        self._outer: list[int] = []

    def wait_event(self, event: Event) -> None:
        event.wait(self)

    def wait_stream(self, other: "Stream") -> None:
        self.clock.learn(self.number, self.clock.state(other.number))

    def record_event(self, event: Event | None = None) -> Event:
        event = self.event_type() if event is None else event
        event.record(self)
        return event

    def synchronize(self) -> None:
        self.clock.wait(self.number)

    def query(self) -> bool:
        self.synchronize()
        return True

    def is_capturing(self) -> bool:
        """Always False: no graphs are captured here."""
        return False

    @property
    def cuda_stream(self) -> int:
        return self.number

    def __enter__(self) -> "Stream":
        self._outer.append(self.clock.stream)
        self.clock.stream = self.number
        return self

    def __exit__(self, *error: object) -> None:
        self.clock.stream = self._outer.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)
