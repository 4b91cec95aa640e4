"""Tests of the WebSocket server, in the folders of its package."""
