"""Which accounts a user may see, if AUTHZ_URL decides."""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import httpx
import msgspec
import structlog

from portfolio_realtime.websocket_server.access.identity import Confirmed, Held, Identity, Unverifiable
from portfolio_realtime.websocket_server.access.transport import transport_to

ANSWER_S_MAX: Final = 2.0
REQUESTS_MAX: Final = 32  # at the same time, for who is new and for who is connected, each
WARNING_S: Final = 10.0  # between two lines of the log about one webhook
ANSWER_BYTES_MAX: Final = 4096
ANSWERS_MAX: Final = 100_000  # kept

log = structlog.get_logger()


class _Answer(msgspec.Struct):
    allowed: bool


class ByWebhook:
    """POST AUTHZ_URL `{"subject": …, "account_id": …}` decides.

    200 with `{"allowed": true}` is yes. 403, 404 and `{"allowed": false}` are no. Anything else is no answer.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        fresh_s: float,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._http = httpx.AsyncClient(
            timeout=ANSWER_S_MAX,
            headers=headers,
            follow_redirects=False,
            transport=transport_to(self._url),
        )
        self._fresh_s = fresh_s
        self._monotonic_s = monotonic_s
        self._turns = asyncio.Semaphore(REQUESTS_MAX)
        self._turns_again = asyncio.Semaphore(REQUESTS_MAX)  # so that newcomers do not wait behind all others
        self._warned_s = float("-inf")
        self._answers: dict[tuple[str, str], tuple[bool, float]] = {}

    async def admit(self, identity: Identity) -> Identity:
        """As it is: it is asked when an account is."""
        return identity

    async def may_see(self, identity: Identity, account_id: str) -> bool:
        """Ask, unless it was asked a moment ago. Raises Unverifiable."""
        if identity.may_see(account_id) or not identity.is_asked:
            return identity.may_see(account_id)
        answer = self._answers.get((identity.subject, account_id))
        if answer is not None and self._monotonic_s() - answer[1] <= self._fresh_s:
            return answer[0]
        return await self._ask(self._turns, identity.subject, account_id)

    async def confirm(self, held: Held) -> dict[str, Confirmed]:
        """Ask again for every account that somebody is shown."""
        pairs = [(subject, account_id) for subject, accounts in held.items() for account_id in accounts]
        answers = await asyncio.gather(
            *(self._ask(self._turns_again, *pair) for pair in pairs), return_exceptions=True
        )
        allowed: dict[str, set[str]] = {subject: set() for subject in held}
        uncertain: set[str] = set()
        for (subject, account_id), answer in zip(pairs, answers, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, Unverifiable):
                raise answer
            if isinstance(answer, BaseException):
                uncertain.add(subject)
            if answer is not False:
                allowed[subject].add(account_id)
        return {
            subject: Confirmed(frozenset(accounts), subject not in uncertain)
            for subject, accounts in allowed.items()
        }

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _ask(self, turns: asyncio.Semaphore, subject: str, account_id: str) -> bool:
        async with turns:
            asked_s = self._monotonic_s()
            try:
                async with asyncio.timeout(ANSWER_S_MAX):
                    is_allowed = await self._post({"subject": subject, "account_id": account_id})
            except (httpx.HTTPError, msgspec.DecodeError, ValueError, TimeoutError) as error:
                self._warn(error)
                raise Unverifiable("webhook_unavailable") from None
        if len(self._answers) >= ANSWERS_MAX:
            self._answers.clear()
        self._answers[subject, account_id] = is_allowed, asked_s
        return is_allowed

    def _warn(self, error: Exception) -> None:
        if self._monotonic_s() - self._warned_s >= WARNING_S:
            self._warned_s = self._monotonic_s()
            log.warning("AUTHZ_URL did not answer", error=type(error).__name__)

    async def _post(self, question: dict[str, str]) -> bool:
        async with self._http.stream("POST", self._url, json=question) as answer:
            if answer.status_code in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
                return False
            if answer.status_code != HTTPStatus.OK:
                raise ValueError(f"HTTP {answer.status_code}")
            text = b""
            async for part in answer.aiter_bytes():
                text += part
                if len(text) > ANSWER_BYTES_MAX:
                    raise ValueError(f"more than {ANSWER_BYTES_MAX} bytes")
        return msgspec.json.decode(text, type=_Answer).allowed
