"""Only holders of what has moved are looked at, and none of them is missed."""

import random
from collections.abc import Callable

import pytest

from portfolio_realtime.model import Account
from portfolio_realtime.valuation.arrays import Ints
from portfolio_realtime.valuation.holders import LOOSE_MIN, Holders
from portfolio_realtime.valuation.valuer import Valuer

from .records import NOW_NS, account, mark, message_of, oracle_figures, position

SYMBOLS = [f"S{number}" for number in range(40)]
ACCOUNTS = [f"account-{number}" for number in range(2 * LOOSE_MIN)]
STEPS = 250
INTERVAL_S = 1.0


class Watching:
    """What clients see of a valuer whose clock stands still: nobody is looked at by time alone."""

    def __init__(self, seed: int) -> None:
        self.valuer = Valuer(price_ttl_s=3600, min_update_interval_s=INTERVAL_S)
        self.rng = random.Random(seed)
        self.prices = dict.fromkeys(SYMBOLS, 1.0)
        self.held: dict[str, Account] = {}
        self.shown: dict[str, str] = {}
        self._version = 0
        self._now_s = 0.0
        self.valuer.apply_marks([mark(symbol, 1.0) for symbol in SYMBOLS])
        self.flush()  # everybody is looked at once

    def put(self) -> None:
        """Somebody comes, or holds something else."""
        rng = self.rng
        self._version += 1
        held = [position(one, rng.randrange(1, 9)) for one in rng.sample(SYMBOLS, rng.randrange(6))]
        one = account(rng.choice(ACCOUNTS), held, version=self._version)
        self.held[one.account_id] = one
        self.valuer.watch(one, 1, with_positions=False)

    def leave(self) -> None:
        """Somebody is not watched any more, or closes the account."""
        account_id = self.rng.choice(ACCOUNTS)
        self.held.pop(account_id, None)
        self.shown.pop(account_id, None)
        self.rng.choice((self.valuer.drop, self.valuer.unwatch))(account_id)

    def pack(self) -> None:
        """Rows get other numbers."""
        for _ in self.valuer.book.pack():
            pass

    def move(self) -> None:
        """Some prices move."""
        for symbol in self.rng.sample(SYMBOLS, self.rng.randrange(1, 4)):
            self.prices[symbol] = self.rng.randrange(1, 10_000) / 100
            self.valuer.apply_marks([mark(symbol, self.prices[symbol])])

    def flush(self) -> None:
        """Everybody's interval is over."""
        self._now_s += INTERVAL_S
        for publication in self.valuer.flush(NOW_NS, self._now_s).publications:
            self.shown[publication.account_id] = message_of(publication)["equity"]

    def live(self) -> None:
        """A random life; after each flush clients see what the oracle says."""
        ways: list[Callable[[], None]] = [self.put, self.put, self.move, self.move, self.move, self.leave]
        for step in range(STEPS):
            self.put() if step < STEPS // 2 else self.rng.choice([*ways, self.pack])()
            self.rng.choice(ways)()
            self.flush()
            assert self.shown == {one: self.equity_of(held) for one, held in self.held.items()}

    def equity_of(self, held: Account) -> str:
        """By the oracle."""
        equity = oracle_figures(held, self.prices).equity
        assert equity is not None
        return equity


@pytest.mark.parametrize("seed", range(4))
def test_nobody_who_holds_what_moved_is_missed(seed: int) -> None:
    """Whoever comes, goes, holds something else or gets another row."""
    Watching(seed).live()


def _nothing(*_: object) -> None:
    """Do nothing."""


def _nobody(_: Holders, columns: Ints) -> Ints:
    return columns[:0]


@pytest.mark.parametrize(
    ("owner", "name", "planted"),
    [(Holders, "loosen", _nothing), (Holders, "of", _nobody)],
)
def test_a_missed_holder_is_seen(
    owner: type, name: str, planted: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults planted where holders are kept."""
    monkeypatch.setattr(owner, name, planted)
    with pytest.raises(AssertionError):
        Watching(1).live()
