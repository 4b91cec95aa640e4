"""What is to happen at a later moment: the close, the overnight roll, second legs, pay dates."""

from collections.abc import Callable
from heapq import heappop, heappush

JOBS_MAX = 100_000

Job = Callable[[int], None]


class Agenda:
    """Jobs by time; those of one moment in the order in which they were planned."""

    def __init__(self) -> None:
        """Nothing is planned."""
        self._jobs: list[tuple[int, int, Job]] = []
        self._count = 0

    def plan(self, at_ns: int, job: Job) -> None:
        """Let `job` be called with its time when that has come."""
        assert len(self._jobs) < JOBS_MAX, "the simulator's agenda is full"
        self._count += 1
        heappush(self._jobs, (at_ns, self._count, job))

    @property
    def next_ns(self) -> int | None:
        """When the next job is due."""
        return self._jobs[0][0] if self._jobs else None

    def run(self, now_ns: int) -> None:
        """Do everything that is due, in order, also what such a job plans for before now."""
        while self._jobs and self._jobs[0][0] <= now_ns:
            at_ns, _, job = heappop(self._jobs)
            job(at_ns)
