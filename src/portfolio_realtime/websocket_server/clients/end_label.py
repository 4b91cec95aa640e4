"""How the end of a connection is counted."""

from websockets.protocol import Protocol

from portfolio_realtime.wire.messages import Disconnect


def end_label(disconnect: Disconnect | None, protocol: Protocol) -> str:
    """Our code, or the client's: it may send any from 3000 on, which is `other`; 1006 for none."""
    if disconnect is not None:
        return str(disconnect.code)
    sent = protocol.close_sent
    if sent is None:
        return "1006"
    return str(sent.code) if sent.code < 3000 else "other"
