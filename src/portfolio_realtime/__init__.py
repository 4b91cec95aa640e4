"""The live value of every brokerage account, from the broker's and the market's data, exact to the cent."""

__version__ = "0.1.0"
