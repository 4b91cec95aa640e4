"""Everything between a process and the simulated Valkey: a client library's interface, and a faulty network.

The commands of one process use several connections, so they can overtake each other. A command may be lost
before it has run, or its answer afterwards. The messages of one subscription keep their order, as with TCP.
What is published while a subscription is broken is lost.
"""

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn

from redis import exceptions

from portfolio_harness.simulation.made_up_valkey import MadeUpValkey

ANSWER_S_MAX: Final = 5.0  # the client library's socket timeout
RETRANSMIT_S: Final = 0.3  # roughly as TCP
DELAY_S: Final = (0.0002, 0.004)  # the usual delay, one way
SLOW_S: Final = (0.05, 0.4)  # the delay of a slow message, one way
SLOW_RATIO: Final = 0.02
BLOCK_POLL_S: Final = 0.5  # how often a blocked read looks: fewer steps than one for each new entry

PLAIN: Final = frozenset((str, bytes, int))  # arguments that are sent as they are

Command = tuple[Any, ...]


class SimulatedNetwork:
    """The network between all processes and the one Valkey, with all subscriptions.

    `answer` may return an error for a command instead of running it. `overheard` is called with every
    publication (channel, payload).
    """

    def __init__(self, valkey: MadeUpValkey, rng: random.Random) -> None:
        self.valkey = valkey
        self.rng = rng
        self.answer: Callable[[tuple[Any, ...]], Exception | None] = lambda _: None
        self.overheard: Callable[[bytes, bytes], None] = lambda _channel, _payload: None
        self._subscriptions: list[SimulatedReceiver] = []
        valkey.publish = self._publish

    def delay_s(self) -> float:
        """A random delay of one message in one direction, in seconds."""
        slow = self.rng.random() < SLOW_RATIO
        return self.rng.uniform(*(SLOW_S if slow else DELAY_S))

    def subscribe(self, subscription: "SimulatedReceiver") -> None:
        """Deliver publications to it from now on."""
        self._subscriptions.append(subscription)

    def unsubscribe(self, subscription: "SimulatedReceiver") -> None:
        """Deliver nothing to it any more."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def break_subscriptions(self, link: "SimulatedLink | None" = None) -> None:
        """Break all subscriptions, or those of one process."""
        for subscription in tuple(self._subscriptions):
            if link is None or subscription.link is link:
                subscription.break_off()

    def end_deafness(self, link: "SimulatedLink") -> None:
        """Deliver to a process what was held back while it was deaf, and hold nothing back any more."""
        link.is_deaf = False
        for subscription in tuple(self._subscriptions):
            if subscription.link is link:
                subscription.catch_up()

    def _publish(self, channel: bytes, payload: bytes) -> int:
        self.overheard(channel, payload)
        receivers = [one for one in self._subscriptions if channel in one.channels]
        for one in receivers:
            one.deliver(channel, payload)
        return len(receivers)


class SimulatedLink:
    """The network link of one process."""

    def __init__(self, network: SimulatedNetwork) -> None:
        self.network = network
        self.is_cut = False  # connections are refused
        self.is_silent = False  # nothing passes, and no connection is closed
        self.is_deaf = False  # publications are held back, everything else passes
        self.loss_ratio = 0.0  # the ratio of requests whose connection breaks, before or after they have run

    async def request(
        self, commands: Sequence[Command], run: Callable[[Command], Any] | None = None
    ) -> list[Any]:
        """Run commands that are sent together, and return their answers. Raises redis.RedisError.

        `run`: how one runs, where that depends on its connection.
        """
        await self._pass()
        loses = self.network.rng.random() < self.loss_ratio
        if loses and self.network.rng.random() < 0.5:
            raise exceptions.ConnectionError("Connection reset by peer")
        answers = list(map(run or self.run, commands))
        if self.is_silent or self.network.rng.random() < SLOW_RATIO:
            await self._pass()  # the delay of the answer; usually left out, because it changes nothing
        if loses:
            raise exceptions.ConnectionError("Connection reset by peer")
        return answers

    def run(self, command: Command) -> Any:
        """The answer of the server to one command, or an error."""
        if (refusal := self.network.answer(command)) is not None:
            return refusal
        try:
            return self.network.valkey.do(*command)
        except exceptions.ResponseError as error:
            return error

    async def _pass(self) -> None:
        if self.is_cut:
            raise exceptions.ConnectionError("Connection refused")
        await asyncio.sleep(self.network.delay_s())
        gives_up_s = asyncio.get_running_loop().time() + ANSWER_S_MAX
        while self.is_silent:
            await asyncio.sleep(RETRANSMIT_S)
            if asyncio.get_running_loop().time() > gives_up_s:
                raise exceptions.TimeoutError("Timeout reading from Valkey")
        if self.is_cut:
            raise exceptions.ConnectionError("Connection closed by server")


class SimulatedReceiver:
    """A connection for subscriptions with the interface of the product's `Receiver`."""

    def __init__(self, link: SimulatedLink, heard: Callable[[str, bytes], None]) -> None:
        self.link = link
        self.channels: set[bytes] = set()
        self.lost: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        self.heard_s = 0.0
        self.is_paused = False
        self._heard = heard
        self._late: list[tuple[bytes, bytes]] = []
        self._last_s = 0.0
        # What is on its way arrives in the process that follows, also when the one that published is killed.
        self._context = contextvars.copy_context()
        self._confirmed = asyncio.Event()

    async def subscribe(self, channels: Sequence[str], *, is_sharded: bool, wait_s: float) -> None:
        """Return when all channels are subscribed. A deaf process gets no confirmation."""
        assert not is_sharded
        await self.link.request([("PING",)])
        if not self.link.is_deaf:
            self.channels = {channel.encode() for channel in channels}
            self.link.network.subscribe(self)
            self._later(self._confirmed.set)
        confirmed = asyncio.ensure_future(self._confirmed.wait())
        try:
            await asyncio.wait({confirmed, self.lost}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            confirmed.cancel()
        if self.lost.done():
            self.lost.result()
        if not self._confirmed.is_set():
            raise exceptions.TimeoutError("the server does not confirm subscriptions")

    def pause(self) -> None:
        """Leave further messages at the server."""
        self.is_paused = True

    def resume(self) -> None:
        """Receive again."""
        self.is_paused = False
        self._catch_up_soon()

    def close(self) -> None:
        """End the subscription."""
        self.break_off()

    def deliver(self, channel: bytes, payload: bytes) -> None:
        """Deliver a publication, unless the link is silent or cut."""
        if not (self.link.is_silent or self.link.is_cut):
            self._later(self._arrive, channel, payload)

    def break_off(self) -> None:
        """Close the connection from the other side."""
        self.channels.clear()
        self.link.network.unsubscribe(self)
        if not self.lost.done():
            self.lost.set_exception(exceptions.ConnectionError("Connection closed by server"))
            self.lost.exception()

    def _later(self, do: Callable[..., None], *arguments: Any) -> None:
        loop = asyncio.get_running_loop()
        self._last_s = max(self._last_s, loop.time() + self.link.network.delay_s())
        loop.call_at(self._last_s, do, *arguments, context=self._context)

    def _arrive(self, channel: bytes, payload: bytes) -> None:
        if self.link.is_deaf or self.is_paused or self._late:
            self._late.append((channel, payload))
        elif not self.lost.done():
            self.heard_s = asyncio.get_running_loop().time()
            self._heard(channel.decode(), payload)

    def _catch_up_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self.catch_up)

    def catch_up(self) -> None:
        """Deliver what was held back."""
        late, self._late = self._late, []
        for channel, payload in late:
            self._arrive(channel, payload)


class SimulatedConnection:
    """The connection that short commands share, with the interface of the product's `SharedConnection`.

    WATCH, MULTI and EXEC as the server does them, but that a watched string counts as unchanged if it has the
    value of before.
    """

    def __init__(self, link: SimulatedLink) -> None:
        self.is_retired = False
        self.watcher: object = None
        self._link = link
        self._watched: dict[Any, Any] = {}
        self._queued: list[Command] | None = None
        self._is_aborted = False

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, with errors in their places. Raises RedisError when the connection is lost."""
        try:
            return await self._link.request(commands, self._run)
        except exceptions.RedisError:
            self.retire()
            raise

    def retire(self) -> None:
        """Use it no more."""
        self.is_retired = True

    def _run(self, command: Command) -> Any:
        name, *arguments = command
        if name == "EXEC":
            return self._execute()
        if self._queued is not None:
            refusal = self._link.network.answer(command)
            self._is_aborted |= refusal is not None
            self._queued.append(command)
            return refusal or b"QUEUED"
        if name == "MULTI":
            self._queued, self._is_aborted = [], False
        elif name == "WATCH":
            self._watched.update((key, self._link.network.valkey.do("GET", key)) for key in arguments)
        else:
            return self._link.run(command)
        return b"OK"

    def _execute(self) -> Any:
        queued, self._queued = self._queued or [], None
        watched, self._watched = self._watched, {}
        if self._is_aborted:
            return exceptions.ExecAbortError("Transaction discarded because of previous errors.")
        if any(self._link.network.valkey.do("GET", key) != value for key, value in watched.items()):
            return None
        return [self._link.run(command) for command in queued]


class SimulatedPipeline:
    """Commands that are sent together, with the interface of the client library's `Pipeline`."""

    def __init__(self, client: "SimulatedClient") -> None:
        self._client = client
        self._commands: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        def note(*arguments: Any, **options: Any) -> None:
            self._commands.append(_command(name, arguments, options))

        return note

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run all commands and return the answers; with `raise_on_error`, raises the first error."""
        answers = await self._client.answers(self._commands)
        for answer in answers:
            if raise_on_error and isinstance(answer, Exception):
                raise answer
        return [_shaped(command, answer) for command, answer in zip(self._commands, answers, strict=True)]


class _Encoder:
    @staticmethod
    def encode(text: str | bytes) -> bytes:
        return text.encode() if isinstance(text, str) else text


class _Pool:
    @staticmethod
    def get_encoder() -> _Encoder:
        return _Encoder()


class SimulatedClient:
    """A client with the interface of the client library's `Redis`. `links` has the link of each URL."""

    links: dict[str, SimulatedLink] = {}  # noqa: RUF012  # the product hands on a URL only

    def __init__(self, link: SimulatedLink, retry: Any) -> None:
        self._link = link
        self._retry = retry
        self.connection_pool = _Pool()
        self._shared = SimulatedConnection(link)

    @classmethod
    def from_url(cls, url: str, *, retry: Any, **_: Any) -> "SimulatedClient":
        """The client of the process that the URL belongs to."""
        return cls(cls.links[url], retry)

    def pipeline(self, *, transaction: bool) -> SimulatedPipeline:
        """A pipeline. `transaction` makes no difference: commands sent together run without interruption."""
        return SimulatedPipeline(self)

    def shared_connection(self) -> SimulatedConnection:
        """The connection that short commands share; a new one after it was lost."""
        if self._shared.is_retired:
            self._shared = SimulatedConnection(self._link)
        return self._shared

    def receiver(self, heard: Callable[[str, bytes], None]) -> SimulatedReceiver:
        """A new connection for subscriptions."""
        return SimulatedReceiver(self._link, heard)

    async def leave_server(self) -> None:
        """Do nothing: no connection is open."""

    async def answers(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run commands and return their answers, with the retries that the product configures."""

        async def ask() -> list[Any]:
            return await self._link.request(commands)

        async def failed(_: Exception, *_count: int) -> None:
            pass

        return await self._retry.call_with_retry(ask, failed)

    async def xread(self, streams: dict[str, str], *, count: int, block: int | None = None) -> Any:
        """The entries of one stream after an id; waits for the first one for `block` ms."""
        ((key, after),) = streams.items()
        loop = asyncio.get_running_loop()
        gives_up_s = loop.time() + (block or 0) / 1000
        while True:
            (answer,) = await self.answers([("XREAD", "COUNT", count, "STREAMS", key, after)])
            if isinstance(answer, Exception):
                raise answer
            if answer or loop.time() >= gives_up_s:
                return _shaped(("XREAD",), answer)
            await asyncio.sleep(BLOCK_POLL_S)

    async def aclose(self) -> None:
        """Do nothing: no connection is open."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def run(*arguments: Any, **options: Any) -> Any:
            command = _command(name, arguments, options)
            (answer,) = await self.answers([command])
            if isinstance(answer, Exception):
                raise answer
            return _shaped(command, answer)

        return run


def _command(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
    flat: list[Any] = []
    for argument in arguments:
        if type(argument) in PLAIN:
            flat.append(argument)
        elif isinstance(argument, dict) and name == "xadd":
            flat += ["MINID", options["minid"]] if "minid" in options else []
            flat += ["*", *(part for pair in argument.items() for part in pair)]
        elif isinstance(argument, dict):
            flat += [part for member, score in argument.items() for part in (score, member)]
        elif isinstance(argument, (list, tuple)):
            flat += argument
        else:
            flat.append(argument)
    if name == "xrevrange":
        flat += ["+", "-"]
    for option, value in options.items():
        if option in ("px", "count") and value is not None:
            flat += [option.upper(), value]
        elif value is True:
            flat.append(option.upper())
    return (name.upper(), *flat)


def _shaped(command: tuple[Any, ...], answer: Any) -> Any:
    match command[0]:
        case "HGETALL":
            return dict(zip(answer[::2], answer[1::2], strict=True))
        case "HSCAN":
            return int(answer[0]), dict(zip(answer[1][::2], answer[1][1::2], strict=True))
        case "TIME":
            return int(answer[0]), int(answer[1])
        case "XREAD":
            return [
                (key, [(name, dict(zip(fields[::2], fields[1::2], strict=True))) for name, fields in entries])
                for key, entries in answer or ()
            ]
        case "INFO":
            lines = (line.partition(":") for line in answer.decode().splitlines())
            return {key: int(value) for key, _, value in lines}
        case _:
            return answer
