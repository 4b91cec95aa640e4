"""Every key and channel of the shared state. No other file contains a key name.

| pattern                    | type       | writer                | lifetime | holds                                         |
| -------------------------- | ---------- | --------------------- | -------- | --------------------------------------------- |
| {universe}                 | hash       | symbol collector      | none     | symbol -> asset class                         |
| {marks}                    | hash       | market data consumer  | none     | symbol -> Mark, or Unmarked, as JSON          |
| {sNN}:accounts             | hash       | symbol collector      | none     | account -> Account as JSON                    |
| {sNN}:bookings             | hash       | symbol collector      | none     | account -> Bookings of the day as JSON        |
| {sNN}:pending              | hash       | symbol collector      | none     | account without a record -> Pending; "": all are here |
| {sNN}:valuations           | hash       | portfolio calculator  | none     | watched account -> newest publication as JSON |
| {sNN}:interest             | sorted set | websocket server      | none     | 'ACCOUNT SERVER' that watches it -> expiry in ms |
| {sNN}:interest:positions   | sorted set | websocket server      | none     | the same, with its positions                  |
| {sNN}:interest:changes     | stream     | websocket server      | none     | 'ACCOUNT SERVER' that have begun or ended     |
| {minutes:TIME}             | hash       | market data consumer  | 36 h     | symbol -> price and time of its mark, if new  |
| {minutes:TIME}:LEASE:fence | string     | market data consumer  | 36 h     | newest fencing token that has written it      |
| lease:{NAME}               | string     | its holder            | LEASE_MS | holder and fencing token                      |
| members:GROUP              | sorted set | each member           | none     | running instance -> expiry in ms              |
| lease:{NAME}:granted       | string     | its holder            | none     | newest fencing token that was granted         |
| HASH:fence                 | string     | the hash's writer     | none     | newest fencing token that has written HASH    |
| history:ACCOUNT            | string     | symbol collector      | 36 h     | ClosedDays as JSON, of a requested account    |
| account-numbers            | hash       | symbol collector      | none     | account -> the broker's number of it          |
| asset-names                | hash       | symbol collector      | none     | symbol -> name of the company or coin         |
| history-wanted             | set        | websocket server      | 60 s     | accounts whose closed days are requested      |
| cursor:activities          | string     | symbol collector      | none     | newest event_id seen on the activity stream   |
| {feed}:SOURCE              | string     | market data consumer  | 2 s      | exists while all trades arrive: see `feeds.py` |
| {feed}:accounts            | string     | symbol collector      | 2 s      | exists while the broker can be followed       |
| life                       | string     | websocket server      | none     | names this life of the state; lost with it    |
| shards                     | string     | each service          | none     | SHARDS, on which all services must agree      |
| settings                   | string     | each service          | 15 s     | LEASE_MS …, on which running services agree   |
| wire                       | hash       | each service          | none     | process -> versions of the wire that it reads and writes, expiry in ms |
| {metrics}:SERVICE:INSTANCE | string     | each service          | 15 s     | its metrics in Prometheus text                |
| ticket:SHA256              | string     | websocket server      | 30 s     | owner of the ticket; deleted when used        |
| {revocations}              | stream     | operators             | JWT_LIFETIME_MAX | revoked credentials                       |
| {revocations}:known        | hash       | websocket server      | none     | since_s: all revocations since are in it      |
| {connections}:servers      | sorted set | websocket server      | none     | living server -> expiry in ms                 |
| {connections}:SERVER:PERIOD | hash      | websocket server      | 2 s      | digest of a user or address -> connections    |
| entitlements               | hash       | operators             | none     | subject -> list of account ids as JSON        |
| channel {universe}         |            | symbol collector      |          | the universe changed                          |
| channel {marks}            |            | market data consumer  |          | a batch of marks in columns, one per flush    |
| channel {sNN}:accounts     |            | symbol collector      |          | list of AccountChange                         |
| channel {sNN}:valuations   |            | portfolio calculator  |          | signs of life, as an empty PublicationBatch   |
| channel {sNN}:valuations:SERVER |       | portfolio calculator  |          | PublicationBatch as MessagePack, of what it watches |
| channel {sNN}:interest     |            | websocket server      |          | accounts that are newly watched               |
| channel {TAG}:probe:WORD   |            | each process          |          | empty: tests whether its subscription works   |

On a cluster the tag of a key, the part in braces, decides which node holds it; without a tag, the whole name
does. All keys that one script or transaction uses have the same tag. So do a hash and the channel on which it
is announced:

- `{sNN}`: everything of one shard: its hashes, interest, lease, fences and channels
- `{universe}`: the universe, its fence and channel
- `{marks}`: the marks, a fence for each lease, the channel
- `{minutes:TIME}`: the marks at one minute, a fence for each lease
- `{NAME}` of a lease: the lease and the newest token that was granted
- `{feed}`, `{metrics}`: all feeds; the metrics of all processes: each group is read at once
- `{revocations}`: the stream, and the hash about it
- `{connections}`: which servers live, and how many connections each has of each user and address
- its own name: every other key; no two of these are read or written together

`{sNN}` stands for a shard's tag, such as `{s03fq}`. The two letters after the number spread the tags of 16 shards
evenly over the slots, so that three, four or eight equal primaries have equal shares.
KEY_PREFIX stands before all keys and channels, so that several tenants can share a server. It has no braces.
"""

import functools
import string
import time
import zlib
from typing import Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

METRICS_TTL_S: Final = 15
FEED_TTL_MS: Final = 2000
TICKET_TTL_S: Final = 30
MINUTES_TTL_S: Final = 36 * 3600
HISTORY_TTL_S: Final = 36 * 3600
FIRST_SHARDS: Final = 16  # the slots of this many shards are in the middle of equal parts
LETTERS: Final = string.ascii_lowercase


_prefix = ""


def use_prefix(prefix: str) -> None:
    """Put `prefix` before every key and channel of this process. Call it before the first read or write."""
    global _prefix
    _prefix = prefix


def prefix() -> str:
    """What stands before every key and channel of this process."""
    return _prefix


def universe() -> str:
    """Hash and channel of the universe."""
    return f"{_prefix}{{universe}}"


def marks() -> str:
    """Hash and channel of the marks."""
    return f"{_prefix}{{marks}}"


def history(account_id: str) -> str:
    """Key of an account's closed days."""
    return f"{_prefix}history:{account_id}"


def account_numbers() -> str:
    """Key of the broker's numbers of accounts, by account."""
    return f"{_prefix}account-numbers"


def asset_names() -> str:
    """Key of the names of assets, by symbol."""
    return f"{_prefix}asset-names"


def history_wanted() -> str:
    """Set of the accounts whose closed days are requested."""
    return f"{_prefix}history-wanted"


def cursor_activities() -> str:
    """Key of the newest event id of the activity stream."""
    return f"{_prefix}cursor:activities"


def revocations() -> str:
    """Stream of the revocations."""
    return f"{_prefix}{{revocations}}"


def revocations_known() -> str:
    """Hash with the time since which the stream is complete, and when a server last read it."""
    return f"{_prefix}{{revocations}}:known"


def entitlements() -> str:
    """Hash of the accounts that each subject may see."""
    return f"{_prefix}entitlements"


def shard_of(account_id: str, shards: int) -> int:
    """The shard of an account: CRC-32 of its id, modulo the number of shards."""
    return zlib.crc32(account_id.encode()) % shards


@functools.cache
def tag(shard: int) -> str:
    """The hash tag of a shard, such as `{s03fq}`, with the letters whose slot is nearest to its place.

    The places are those of the van der Corput sequence: any number of shards is spread evenly.
    """
    place, share, rest = 0.5 / FIRST_SHARDS, 0.5, shard
    while rest:
        place += share * (rest & 1)
        share, rest = share / 2, rest >> 1
    slot = int(place % 1 * REDIS_CLUSTER_HASH_SLOTS)
    names = (f"s{shard:02d}{first}{second}" for first in LETTERS for second in LETTERS)
    return f"{{{min(names, key=lambda name: abs(key_slot(name.encode()) - slot))}}}"


def accounts(shard: int) -> str:
    """Hash and channel of the shard's account records."""
    return f"{_prefix}{tag(shard)}:accounts"


def bookings(shard: int) -> str:
    """Hash of the day's bookings of the shard's accounts."""
    return f"{_prefix}{tag(shard)}:bookings"


def pending(shard: int) -> str:
    """Hash of the shard's accounts that the broker lists but that have no record."""
    return f"{_prefix}{tag(shard)}:pending"


def minute(at_ns: int) -> str:
    """Hash of the marks at one minute, named in UTC: `{minutes:20261120150400}`."""
    return f"{_prefix}{{minutes:{time.strftime('%Y%m%d%H%M%S', time.gmtime(at_ns // 1_000_000_000))}}}"


def valuations(shard: int) -> str:
    """Hash and channel of the shard's publications."""
    return f"{_prefix}{tag(shard)}:valuations"


def server_valuations(shard: int, server: str) -> str:
    """Channel of the publications of a shard that one server's clients watch."""
    return f"{valuations(shard)}:{server}"


def interest_changes(shard: int) -> str:
    """Stream of the accounts of a shard whose interest has begun or ended."""
    return f"{interest(shard)}:changes"


def interest(shard: int) -> str:
    """Sorted set and channel of the shard's watched accounts."""
    return f"{_prefix}{tag(shard)}:interest"


def position_interest(shard: int) -> str:
    """Sorted set of the shard's accounts that are watched with their positions."""
    return f"{_prefix}{tag(shard)}:interest:positions"


def shard_lease(shard: int) -> str:
    """Name of the lease on a shard's valuations: its tag without braces."""
    return tag(shard).strip("{}")


def lease(name: str) -> str:
    """Key of a lease."""
    return f"{_prefix}lease:{{{name}}}"


def granted(name: str) -> str:
    """Key of the newest fencing token granted for a lease."""
    return f"{lease(name)}:granted"


def members(group: str) -> str:
    """Key of the running instances that share some work."""
    return f"{_prefix}members:{group}"


def fence(hash_key: str) -> str:
    """Key of the newest fencing token that has written a hash."""
    return f"{hash_key}:fence"


def counting_servers() -> str:
    """Sorted set of the servers whose connections count."""
    return f"{_prefix}{{connections}}:servers"


def connection_counts(server: str, period: str) -> str:
    """Hash of the connections of a server: the open ones, or the new ones of a minute."""
    return f"{_prefix}{{connections}}:{server}:{period}"


def metrics(service: str, instance: str) -> str:
    """Key of one process's metrics."""
    return f"{_prefix}{{metrics}}:{service}:{instance}"


def metrics_pattern() -> str:
    """Pattern of the keys of all processes' metrics."""
    return f"{_prefix}{{metrics}}:*"


def metrics_source(key: str) -> tuple[str, str]:
    """Service and instance that a metrics key names."""
    _, service, instance = key.removeprefix(_prefix).split(":", 2)
    return service, instance


def feed(source: str) -> str:
    """Key that exists while a source of marks is live."""
    return f"{_prefix}{{feed}}:{source}"


def life() -> str:
    """Key that names this life of the state."""
    return f"{_prefix}life"


def shards() -> str:
    """Key of the number of shards."""
    return f"{_prefix}shards"


def settings() -> str:
    """Key of the settings on which all running processes agree."""
    return f"{_prefix}settings"


def wire() -> str:
    """Hash of the versions of the wire that each running process reads and writes."""
    return f"{_prefix}wire"


def probe(channel: str, word: str) -> str:
    """Channel on which a process tests its own subscription of `channel`, at the same node."""
    begin, _, rest = channel.partition("{")
    tagged = rest.partition("}")[0] or begin
    return f"{_prefix}{{{tagged}}}:probe:{word}"


def ticket(digest: str) -> str:
    """Key of a ticket, by its SHA-256 in hexadecimal."""
    return f"{_prefix}ticket:{digest}"
