"""The metric label of a connection's end."""

from websockets.protocol import Protocol

from portfolio_realtime.wire.messages import Disconnect


def end_label(disconnect: Disconnect | None, protocol: Protocol | None) -> str:
    """Our close code, otherwise the client's, or `1006` without one.

    `protocol`: None if the client has sent no frame that needs it.
    A client may send any code from 3000 on, so all of these count as `other`.
    """
    if disconnect is not None:
        return str(disconnect.code)
    sent = None if protocol is None else protocol.close_sent
    if sent is None:
        return "1006"
    return str(sent.code) if sent.code < 3000 else "other"
