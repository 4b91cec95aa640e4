"""What Valkey's errors mean for a service: errors that pass are waited out, lasting ones name the remedy.

Valkey starts each error with a word (`-OOM command not allowed …`). Plain `ERR` says nothing beyond its text.
An error in neither table is waited out, too, because proxies send errors of their own, and such an error is
no reason to end.
"""

from typing import Any, Final

from redis import exceptions
from redis.asyncio.connection import DefaultParser

from portfolio_realtime.errors import StateError, StateRefused, StateUnavailable

INCOMPLETE: Final = "its cluster is not complete: redis-cli --cluster check HOST:PORT says what is missing"
PASSING: Final = {
    "LOADING": "it reads its data from the disk",
    "BUSY": "it runs a long script: SCRIPT KILL ends it",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "CLUSTERDOWN": INCOMPLETE,
    "TRYAGAIN": "its cluster moves slots",
    "READONLY": "it is a replica: a failover is in progress, or REDIS_HOST does not name the primary",
    "UNBLOCKED": "a failover has made it a replica",
    "NOREPLICAS": "it has fewer replicas than its min-replicas-to-write",
    "MISCONF": "it cannot write to its disk: make room there",
    "OOM": "its memory is full: raise its maxmemory",
    "EXECABORT": "it accepts no transaction now",
}
LOGIN_IN_URL: Final = "write REDIS_URL=redis://USER:PASSWORD@HOST:PORT/0"
NO_LOGIN: Final = "unset REDIS_PASSWORD, or remove the password from REDIS_URL"
RIGHTS: Final = "give its user the rights that docs/security.md lists"
DATABASE_0: Final = "set REDIS_DB=0, or end REDIS_URL with /0"
STAYING: Final = {
    "NOAUTH": f"set REDIS_PASSWORD (and REDIS_USER), or {LOGIN_IN_URL}",
    "WRONGPASS": "check REDIS_USER and REDIS_PASSWORD, or the login in REDIS_URL; its user may be off",
    "NOPERM": RIGHTS,
    "CROSSSLOT": "it is a cluster but does not report it: set REDIS_CLUSTER=true",
    "MOVED": "it is a cluster: unset REDIS_CLUSTER",
    "ASK": "it is a cluster: unset REDIS_CLUSTER",
    "DENIED": f"give it a password, and set REDIS_PASSWORD to it, or {LOGIN_IN_URL}",
    "NOPROTO": "use Valkey, or Redis 7 or newer",
    "WRONGTYPE": "something else writes to our keys: set KEY_PREFIX or another REDIS_DB",
}
STAYING_ERR: Final = {  # beginning of the text of an ERR, or of our own error -> remedy
    "no Sentinel knows a primary of this name": "check REDIS_SENTINEL_MASTER",
    "ACL failure in script": RIGHTS,  # Valkey
    "The user executing the script can't": RIGHTS,  # Redis 7.0
    "unknown command 'SENTINEL'": "REDIS_SENTINELS names a server that is not a Sentinel",
    "unknown command": "use Valkey, or Redis 7 or newer, without renamed commands",
    "unknown subcommand": "use Valkey, or Redis 7 or newer",
    "AUTH <password> called without any password": f"it needs no password: {NO_LOGIN}",
    "Client sent AUTH": f"it needs no password: {NO_LOGIN}",
    "invalid password": "check REDIS_PASSWORD, or the password in REDIS_URL",
    "DB index is out of range": f"it has no such database: {DATABASE_0}",
    "invalid DB index": f"it has no such database: {DATABASE_0}",
    "SELECT is not allowed in cluster mode": f"it is a cluster: {DATABASE_0}",
}
TLS_REMEDIES: Final = {  # part of the text of a handshake error -> remedy
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted: set REDIS_CA_FILE, and use a host name "
    "that is in the certificate",
    "WRONG_VERSION_NUMBER": "it does not use TLS: unset REDIS_SSL, or begin REDIS_URL with redis://",
    "RECORD_LAYER_FAILURE": "it does not use TLS: unset REDIS_SSL, or begin REDIS_URL with redis://",
    "CERTIFICATE_REQUIRED": "it requires a client certificate: set REDIS_CERT_FILE and REDIS_KEY_FILE",
}
# Beginnings of the client's error if the host name is not found.
NO_SUCH_HOST: Final = ("Error -2 ", "Error -5 ")
NAMELESS: Final = "No machine has that name: check REDIS_HOST, or REDIS_URL"
NOT_VALKEY: Final = "the server there is not Valkey or Redis: check REDIS_HOST and REDIS_PORT, or REDIS_URL"
ROLE_CHANGED: Final = frozenset({"READONLY", "UNBLOCKED", "MASTERDOWN"})  # another server is the primary now
OWN_FAULT: Final = "script: "  # part of the ERR of a script that has a bug


class PassingError(exceptions.ConnectionError):
    """An error that passes. As a ConnectionError, it makes the client drop the connection."""


class Parser(DefaultParser):  # type: ignore[misc, valid-type]  # the library chooses this class at run time
    """The client's parser, which raises PassingError for errors that pass."""

    EXCEPTION_CLASSES = {  # noqa: RUF012  # the library declares it so
        **DefaultParser.EXCEPTION_CLASSES,
        **dict.fromkeys(PASSING, PassingError),
    }


def word_of(error: BaseException) -> str:
    """The first word of an error, such as OOM; "" if the server has not sent one."""
    word = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    is_word = isinstance(error, exceptions.RedisError) and word.isalpha() and word.isupper()
    return word if is_word else ""


def is_lost(error: BaseException) -> bool:
    """Whether an immediate second try on a new connection may help."""
    if isinstance(error, PassingError):
        return error.status_code in ROLE_CHANGED
    is_answer = isinstance(error, (exceptions.AuthenticationError, exceptions.BusyLoadingError))
    return isinstance(error, exceptions.ConnectionError) and not is_answer


def state_error(error: exceptions.RedisError | OSError, *, has_answered: bool = True) -> StateError | None:
    """What a client error means for a service; None for a mistake of our own.

    `has_answered`: whether this server has already sent valid answers.
    """
    if isinstance(error, exceptions.InvalidResponse) and not has_answered:
        return StateRefused(f"Valkey: {NOT_VALKEY}")
    word, text = word_of(error), str(error).strip()
    if (remedy := _staying(word, text)) is not None:
        return StateRefused(f"Valkey refuses us ({_shown(word, text)}): {remedy}")
    if isinstance(error, (exceptions.DataError, exceptions.PubSubError, exceptions.WatchError)):
        return None
    if word == "ERR" and OWN_FAULT in text:
        return None
    if word:
        meaning = PASSING.get(word, "")
        return StateUnavailable(f"Valkey answers {_shown(word, text)}{meaning and ': '}{meaning}", word)
    # An error without a first word comes from a proxy.
    if isinstance(error, exceptions.ResponseError):
        return StateUnavailable(f"Valkey answers {text}", "ERR")
    away = f"Valkey cannot be reached: {text.rstrip('.') or type(error).__name__}"
    if text.startswith(NO_SUCH_HOST):
        return StateUnavailable(f"{away}. {NAMELESS}", is_nameless=True)
    is_part = INCOMPLETE in getattr(error, "__notes__", ())
    return StateUnavailable(f"{away}: {INCOMPLETE}" if is_part else away, is_part=is_part)


def result_or_unavailable(answer: Any) -> Any:
    """The answer, or what it means if it is an error that passes. Raises StateRefused, RedisError."""
    if not isinstance(answer, (exceptions.RedisError, OSError)):
        return answer
    meaning = state_error(answer)
    if not isinstance(meaning, StateUnavailable):
        raise meaning or answer
    return meaning


def _staying(word: str, text: str) -> str | None:
    """The remedy for an error that waiting does not resolve, or None."""
    if word in STAYING:
        return STAYING[word]
    plain = text.removeprefix("ERR ")
    for begin, remedy in STAYING_ERR.items():
        if plain.startswith(begin):
            return remedy
    for sign, remedy in TLS_REMEDIES.items():
        if sign in text:
            return remedy
    return None


def _shown(word: str, text: str) -> str:
    """Word and text without repetition. The text may name keys and users, never a password."""
    return text if text.startswith(word) else f"{word} {text}"
