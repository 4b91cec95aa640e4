"""The day P&L of one position."""

from decimal import Decimal

from portfolio_realtime.model import EXACT, ZERO, Mark, Position, exact


def position_day_pnl(position: Position, mark: Mark | None) -> Decimal | None:
    """The position's gain since the previous close, in dollars, or None if a price or a cost is unknown.

    It is the value now, less the value at the previous close of what was held then, less what was paid since.
    The formula is the same for carried, opened, reduced and closed positions. The day's cost must be known,
    and must count from the day of the previous close or a later one.
    """
    is_close_later = bool(mark and position.day_asof and (mark.previous_close_date or "") > position.day_asof)
    carried = EXACT.subtract(position.quantity, position.day_quantity)
    if not position.is_day_cost_known or (position.quantity and mark is None):
        return None
    if carried and (mark is None or mark.previous_close is None or is_close_later):
        return None
    now = EXACT.multiply(position.quantity, exact(mark.price)) if mark else ZERO
    then = EXACT.multiply(carried, exact(mark.previous_close)) if mark and mark.previous_close else ZERO
    gained = EXACT.multiply(EXACT.subtract(now, then), position.multiplier)
    return EXACT.subtract(gained, position.day_cost)
