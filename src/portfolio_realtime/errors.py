"""What the world can do to us, as one tree; a caller catches the branch it can act on.

PortfolioRealtimeError
├── SettingsError          a setting is wrong: which, its value, the remedy
├── TokenRefused           no OAuth token for our client id: waiting does not help
├── StateError
│   ├── StateUnavailable   Valkey cannot be reached, or not now: wait, reconnect, read again
│   ├── StateRefused       Valkey refuses us: waiting does not help
│   └── LeaseLost          a newer owner has written here: stop writing
├── BrokerError
│   ├── BrokerRefused      credentials or permission: waiting does not help
│   └── BrokerUnavailable  network, 429, 5xx: try later
└── FeedError
    ├── FeedRefused        credentials, plan or protocol: waiting does not help
    └── FeedUnavailable    cut, mute or busy: reconnect

A bug of our own is an assertion, not an exception of this tree.
"""


class PortfolioRealtimeError(Exception):
    """Base of every expected failure."""


class SettingsError(PortfolioRealtimeError):
    """A setting is wrong; the message names it, shows its value (secrets hidden) and the remedy."""


class TokenRefused(PortfolioRealtimeError):
    """The token endpoint refuses our client id or secret."""


class StateError(PortfolioRealtimeError):
    """The shared state failed."""


class StateUnavailable(StateError):
    """Valkey cannot be reached, or answers with an error that passes; `word` is that error's, else "".

    `is_nameless`: no machine has the name that we were given, at least not now.
    """

    def __init__(self, message: str, word: str = "", *, is_nameless: bool = False) -> None:
        super().__init__(message)
        self.word = word
        self.is_nameless = is_nameless


class StateRefused(StateError):
    """Valkey refuses us for good; the message holds the remedy."""


class LeaseLost(StateError):
    """A write was refused because a newer owner has written here."""


class BrokerError(PortfolioRealtimeError):
    """The broker's REST interface or event stream failed."""


class BrokerRefused(BrokerError):
    """The broker refuses our credentials or lacks what we ask for."""


class BrokerUnavailable(BrokerError):
    """The broker cannot answer now."""


class FeedError(PortfolioRealtimeError):
    """The market-data stream or its snapshots failed."""


class FeedRefused(FeedError):
    """The feed refuses our credentials, plan or messages."""


class FeedUnavailable(FeedError):
    """The feed is cut, mute or busy."""
