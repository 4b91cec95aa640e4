"""The live value of every brokerage account: broker and market in, exact valuations out."""

__version__ = "0.1.0"
