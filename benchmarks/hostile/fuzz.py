"""Coverage-guided fuzzing of one WebSocket: `python -m benchmarks.hostile.fuzz -runs=100000 -seed=7`.

The options are libFuzzer's. What it finds stops it with an exception, and leaves the input in a file.
"""

import asyncio
import sys

import atheris

with atheris.instrument_imports(  # pyright: ignore[reportAttributeAccessIssue]  # it has no types
    include=["portfolio_realtime.websocket_server", "websockets", "msgspec"]
):
    from benchmarks.hostile.victim import Victim
    from benchmarks.raw_websocket import TEXT, frame
    from portfolio_realtime import logs

SMALL_MESSAGE_BYTES = 1000


def main() -> None:
    """Fuzz until libFuzzer has enough; it ends the process."""
    logs.configure("hostile", "error", "console")
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    victims = (Victim(is_open=True), Victim(is_open=False))

    def meet(data: bytes) -> None:
        """The first byte chooses the server and whether the rest is frames or the text of one."""
        choice, rest = data[0] if data else 0, data[1:]
        sent = rest if choice & 2 else frame(TEXT, rest[:SMALL_MESSAGE_BYTES])
        loop.run_until_complete(victims[choice & 1].meet(sent))

    atheris.Setup(sys.argv, meet)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
