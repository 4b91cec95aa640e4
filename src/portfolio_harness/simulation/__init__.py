"""Simulation: the services' coroutines under one seeded scheduler, in virtual time, on a simulated Valkey."""
