"""How long a trial takes: a short story finds every planted fault, a long one gives faults time to meet."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class TrialStory:
    """The times of a trial, in seconds from its beginning."""

    clients_s: float  # when the clients connect
    warm_s: float  # no fault begins while the services start
    faults_s: float  # the time in which faults begin
    fault_s: tuple[float, float]  # how long a fault lasts, at least and at most
    brevity: int  # 1: every length is as likely; the higher, the more faults are short
    faults_max: int
    short_token_s: float  # of one client, whose token expires during the trial


SHORT: Final = TrialStory(
    clients_s=0.5, warm_s=0.8, faults_s=1.0, fault_s=(0.3, 6.0), brevity=3, faults_max=2, short_token_s=2.0
)
LONG: Final = TrialStory(
    clients_s=1.0, warm_s=2.0, faults_s=4.0, fault_s=(0.3, 5.0), brevity=1, faults_max=4, short_token_s=5.0
)
