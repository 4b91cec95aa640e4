"""What each kind of message does to the marks."""

from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.market_data_consumer.messages import (
    Cancel,
    Correction,
    Message,
    StreamTrade,
    TradingStatus,
)


def apply_message(book: MarkBook, message: Message, received_ns: int) -> str:
    """Apply one message of the stream to the book; return the type by which it is counted."""
    match message:
        case StreamTrade():
            book.add_trades((message,), received_ns)
            return "t"
        case Correction():
            book.correct(message, received_ns)
            return "c"
        case Cancel():
            book.cancel(message, received_ns)
            return "x"
        case TradingStatus():
            book.set_status(message, received_ns)
            return "s"
        case _:
            return "control"
