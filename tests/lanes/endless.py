"""What is run in a process of its own, until it is killed."""

from __future__ import annotations

import os
import time

from atriva_ray.lanes.connect import connect_unix
from atriva_ray.lanes.loop import LaneLoop

from .tools import Client, Question, Replica, Runner, numbers, plus_one


def ask(writing, name, token):
    """Keep some small and large requests under way."""
    client = Client(LaneLoop(), connect_unix(name, bytes.fromhex(token)))
    os.write(writing, b"asking")
    questions = []
    while True:
        for size in (8, 250_000, 3_000):
            questions += client.send(Question(numbers(1, size)))
        while len(questions) > 20:
            questions.pop(0).outputs()


def serve(writing):
    """Serve slowly enough to be killed in the middle."""

    def slowly(arrays):
        time.sleep(0.002)
        return plus_one(arrays)

    replica = Replica(Runner(slowly))
    os.write(writing, f"{replica.listener.name} {replica.token.hex()}".encode())
    while True:
        time.sleep(60)
