"""Jobs for a later time: the close, the overnight roll, second legs, pay dates."""

from collections.abc import Callable
from heapq import heappop, heappush

JOBS_MAX = 100_000

Job = Callable[[int], None]


class Agenda:
    """Jobs ordered by time; jobs of the same time run in the order in which they were planned."""

    def __init__(self) -> None:
        self._jobs: list[tuple[int, int, Job]] = []
        self._count = 0

    def plan(self, at_ns: int, job: Job) -> None:
        """Call `job(at_ns)` once `at_ns` is reached. Times are in ns since the epoch."""
        assert len(self._jobs) < JOBS_MAX, "the simulator's agenda is full"
        self._count += 1
        heappush(self._jobs, (at_ns, self._count, job))

    @property
    def next_ns(self) -> int | None:
        """The time of the next job; None without jobs."""
        return self._jobs[0][0] if self._jobs else None

    def run(self, now_ns: int) -> None:
        """Run all jobs that are due, in order, including those that a job plans for a time before now."""
        while self._jobs and self._jobs[0][0] <= now_ns:
            at_ns, _, job = heappop(self._jobs)
            job(at_ns)
