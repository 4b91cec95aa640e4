"""Prices printed by hand on a simulated market."""

from tests.alpaca_sim.conftest import Running


async def print_price(running: Running, price: str, symbol: str = "AAPL") -> None:
    """One ordinary trade."""
    await running.post("/_sim/print", symbol=symbol, price=price)
