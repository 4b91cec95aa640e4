"""Plants a slow-down: this process uses COMPARE_SLOWER_RATIO more processor time than it would.

Python imports a module of this name at its start. Only `benchmarks.compare --plant` puts it on the path.
"""

import os
import threading
import time

ROUND_S = 0.02


def _burn(ratio: float) -> None:
    burnt_s = 0.0
    while True:
        time.sleep(ROUND_S)
        owed_s = ratio * (time.process_time() - burnt_s) - burnt_s
        end_s = time.thread_time() + owed_s
        begun_s = time.thread_time()
        while time.thread_time() < end_s:
            pass
        burnt_s += time.thread_time() - begun_s


def _start() -> None:
    threading.Thread(target=_burn, args=(float(os.environ["COMPARE_SLOWER_RATIO"]),), daemon=True).start()


if os.environ.get("COMPARE_SLOWER_RATIO"):
    _start()
    os.register_at_fork(after_in_child=_start)  # a fork takes no other thread along
