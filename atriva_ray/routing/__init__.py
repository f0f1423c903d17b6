"""Decisions only: which devices, which replicas, which replica for a request.

Nothing in here imports ray, does I/O, reads a clock or draws a random number; time comes in as an
argument. So every decision is tested, and simulated, without a cluster.
"""
