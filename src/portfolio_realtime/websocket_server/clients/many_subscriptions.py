"""A back end's many accounts on one connection: which wait for a first value, which were refused."""

from typing import Final

from portfolio_realtime.wire.messages import ErrorCode, Progress, RefusedAccount

PROGRESS_S: Final = 1.0
REFUSED_OF_A_MESSAGE_MAX: Final = 100


class ManySubscriptions:
    """The progress of one connection's `subscribe_many`."""

    __slots__ = ("_is_untold", "_next_s", "_refused", "waiting")

    def __init__(self) -> None:
        self.waiting: set[str] = set()  # accounts without a first value
        self._refused: list[RefusedAccount] = []
        self._is_untold = False
        self._next_s = 0.0

    def begin(self, account_id: str, *, is_waiting: bool) -> None:
        """Note a requested account. `is_waiting`: it has no first value yet."""
        self._is_untold = True
        if is_waiting:
            self.waiting.add(account_id)

    def sent(self, account_id: str) -> None:
        """Note that the account has its first value, or is not wanted any more."""
        if account_id in self.waiting:
            self.waiting.remove(account_id)
            self._is_untold = True

    def refuse(self, account_id: str, code: ErrorCode) -> None:
        """Note that the account will not be sent, and why."""
        self.waiting.discard(account_id)
        self._refused.append(RefusedAccount(account_id, code))
        self._is_untold = True

    def due_s(self) -> float | None:
        """When the next progress message is due, in monotonic seconds; None: there is none."""
        if not self._is_untold:
            return None
        return 0.0 if not self.waiting or self._refused else self._next_s

    def progress(self, subscribed: int, now_s: float) -> Progress | None:
        """The progress message that is due now, or None."""
        due_s = self.due_s()
        if due_s is None or now_s < due_s:
            return None
        told, self._refused = (
            self._refused[:REFUSED_OF_A_MESSAGE_MAX],
            self._refused[REFUSED_OF_A_MESSAGE_MAX:],
        )
        self._is_untold, self._next_s = bool(self._refused), now_s + PROGRESS_S
        return Progress(subscribed, len(self.waiting), told)
