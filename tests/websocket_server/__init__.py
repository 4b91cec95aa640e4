"""Tests of the stage `websocket`."""
