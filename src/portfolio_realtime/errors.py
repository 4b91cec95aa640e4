"""All expected failures, as one tree of exceptions. A caller catches the branch that it can act on.

PortfolioRealtimeError
├── SettingsError          a setting is wrong: which, its value, the remedy
├── TokenRefused           no OAuth token for our client id: a retry does not help
├── StateError
│   ├── StateUnavailable   Valkey is unreachable or cannot answer now: wait, reconnect, read again
│   ├── StateRefused       Valkey refuses us: a retry does not help
│   └── LeaseLost          the lease is lost, or a newer owner has written: stop writing
├── BrokerError
│   ├── BrokerRefused      credentials or permission: a retry does not help
│   └── BrokerUnavailable  network, 429, 5xx: retry later
└── FeedError
    ├── FeedRefused        credentials, plan or protocol: a retry does not help
    └── FeedUnavailable    cut, silent or busy: reconnect

A bug in this program is an assertion, not an exception of this tree.
"""


class PortfolioRealtimeError(Exception):
    """Base of every expected failure."""


class SettingsError(PortfolioRealtimeError):
    """A setting is wrong. The message has its name, its value (secrets hidden) and the remedy."""


class TokenRefused(PortfolioRealtimeError):
    """The token endpoint refuses the client id or the client secret."""


class StateError(PortfolioRealtimeError):
    """The shared state failed."""


class StateUnavailable(StateError):
    """Valkey cannot be reached, or answers with a temporary error.

    `word` is the code of that error, such as LOADING, else "". `is_nameless`: the host name cannot be
    resolved. `is_part`: a node of a cluster cannot be reached, and others may be.
    """

    def __init__(
        self, message: str, word: str = "", *, is_nameless: bool = False, is_part: bool = False
    ) -> None:
        super().__init__(message)
        self.word = word
        self.is_nameless = is_nameless
        self.is_part = is_part


class StateRefused(StateError):
    """Valkey refuses our requests for good. The message has the remedy."""


class LeaseLost(StateError):
    """The lease has expired or has another owner, or a write was refused because of a newer owner."""


class BrokerError(PortfolioRealtimeError):
    """The broker's REST API or event stream failed."""


class BrokerRefused(BrokerError):
    """The broker refuses our credentials, or does not have what was requested."""


class BrokerUnavailable(BrokerError):
    """The broker cannot answer now."""


class RequestFailed(PortfolioRealtimeError):
    """An HTTP request got no answer, or none that can be read: the network, a proxy or a time limit."""


class FeedError(PortfolioRealtimeError):
    """The market-data stream or its snapshots failed."""


class FeedRefused(FeedError):
    """The feed refuses our credentials, plan or messages."""


class FeedUnavailable(FeedError):
    """The feed is cut, silent or busy."""
