"""Sessions on real replicas: they stay, and what happens to them when something dies."""

from __future__ import annotations

import os
import signal

import pytest

from tests import stateful_models
from tests.cluster.tools import DriverError, wait_until

HELPERS = """
    import signal
    from atriva_ray.route_table import ModelRoutes
    one = {"x": np.ones((1, 3), "f4")}

    def add(target):
        return float(target.run(one)["sum"].to_numpy()[0, 0])

    def replica_of(session):
        return session._executor._line

    def counts():
        lines = model._dispatcher._lines.values()
        return sorted(ray.get([line.actor.session_count.remote() for line in lines]))
"""
PIDS = "sorted(use.info.pid for use in model.replicas)"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(stateful_models.save_accumulator(tmp_path_factory.mktemp("m") / "m.xml", first=7.0))


@pytest.fixture
def open_pair(path, driver_on, request):
    """Programs that share a model of this test's own with two replicas."""

    def start(driver=None):
        program = driver or driver_on()
        program.do(HELPERS)
        name = request.node.name
        program.do(f"model = runtime.load_model({path!r}, name={name!r}, replicas=2)")
        return program

    return start


def test_sessions_are_shared_out_and_stay_while_other_requests_go_everywhere(open_pair):
    program = open_pair()
    program.do("""
        sessions = [model.create_session() for _ in range(4)]
        replicas = [replica_of(session).route.replica_id for session in sessions]
        for _ in range(25):
            sums = [add(session) for session in sessions]
        in_sessions = {use.route.replica_id: use.answered for use in model.replicas}
        answers = list(model.create_stream().map([one] * 400))
        alone = {float(answer["sum"].to_numpy()[0, 0]) for answer in answers}
        in_all = {use.route.replica_id: use.answered for use in model.replicas}
    """)
    assert program.get("sums") == [32] * 4
    assert program.get("sorted(replicas.count(each) for each in set(replicas))") == [2, 2]
    assert program.get("[in_sessions[each] for each in replicas]") == [50] * 4
    assert program.get("counts()") == [2, 2]
    assert program.get("sorted(alone)") == [8]
    assert all(count > 0 for count in program.get("[in_all[r] - in_sessions[r] for r in in_all]"))
    program.do("for session in sessions: session.close()")
    assert program.get("counts()") == [0, 0]


def test_a_killed_replica_takes_its_sessions_and_no_others(open_pair):
    program = open_pair()
    program.do("""
        lost, kept = model.create_session(), model.create_session()
        for _ in range(3):
            add(lost), add(kept)
        saved = lost.state
        label = str(replica_of(lost).route.label)
        victim = replica_of(lost).info.pid
        waiting = [lost.submit(one) for _ in range(5)]
        [future.result() for future in waiting]
    """)
    victim = program.get("victim")
    program.do(f"""
        os.kill({victim}, signal.SIGKILL)
        results = []
        for _ in range(200):
            try:
                results.append(add(lost))
            except SessionLostError as error:
                seen = error
                break
    """)
    assert program.get("results") == [16 + number for number in range(len(program.get("results")))]
    fields = program.get("[seen.session, lost.number, seen.model, seen.where, seen.remedy]")
    assert fields[0] == fields[1]
    assert fields[2] == "test_a_killed_replica_takes_its_sessions_and_no_others"
    assert fields[3].startswith(program.get("label"))
    assert "create a new session" in fields[4]
    for use in ("add(lost)", "lost.state", "lost.reset()", "lost.submit(one).result()"):
        with pytest.raises(DriverError, match="SessionLostError"):
            program.get(use)
    assert program.get("add(kept)") == 11
    assert program.get("add(model)") == 8
    wait_until(lambda: len(program.get(PIDS)) == 2 and victim not in program.get(PIDS))
    with pytest.raises(DriverError, match="SessionLostError"):
        program.get("add(lost)")  # not on the replica that stands in either
    program.do("lost.close()\nagain = model.create_session()\nagain.set_state(saved)")
    assert program.get("[add(again), add(kept)]") == [11, 12]
    assert program.get("replica_of(again) is not replica_of(kept)")


def test_requests_that_a_killed_replica_had_are_lost_and_not_repeated(open_pair):
    program = open_pair()
    program.do("""
        session, other = model.create_session(), model.create_session()
        futures = [session.submit(one) for _ in range(2000)]
        others = [other.submit(one) for _ in range(200)]
        os.kill(replica_of(session).info.pid, signal.SIGKILL)
        sums, errors = [], []
        for future in futures:
            try:
                sums.append(float(future.result(60)["sum"].to_numpy()[0, 0]))
            except Exception as error:
                errors.append(type(error).__name__)
        last = float(others[-1].result(60)["sum"].to_numpy()[0, 0])
    """)
    sums, errors = program.get("[sums, errors]")
    assert sums == [8 + number for number in range(len(sums))]
    assert errors
    assert set(errors) == {"SessionLostError"}
    assert len(sums) + len(errors) == 2000
    assert program.get("last") == 207


def test_a_killed_program_leaves_no_session(open_pair):
    program, other = open_pair(), open_pair()
    program.do("sessions = [model.create_session() for _ in range(6)]")
    other.do("mine = model.create_session()\nadd(mine)")
    assert sum(other.get("counts()")) == 7
    program.kill()
    wait_until(lambda: sum(other.get("counts()")) == 1, timeout_s=20)
    assert other.get("add(mine)") == 9


def test_new_sessions_avoid_a_replica_that_hangs(open_pair):
    program = open_pair()
    (hanging, _) = program.get(PIDS)
    os.kill(hanging, signal.SIGSTOP)
    try:
        program.do("sessions = [model.create_session() for _ in range(3)]")
        assert hanging not in program.get("[replica_of(each).info.pid for each in sessions]")
        assert program.get("[add(session) for session in sessions]") == [8] * 3
    finally:
        os.kill(hanging, signal.SIGCONT)


def test_a_session_outlives_a_table_that_lacks_its_replica(open_pair):
    program = open_pair()
    program.do("""
        from dataclasses import replace
        session = model.create_session()
        add(session)
        line = replica_of(session)
        dispatcher = model._dispatcher
        there = [(each.route, each.info, each.actor) for each in dispatcher._lines.values()]
        left = [each for each in there if each[0].replica_id != line.route.replica_id]
        routes = ModelRoutes(dispatcher.key, dispatcher.generation, 10**9, tuple(left))
        dispatcher.set_routes(routes)
        answered = line.use.answered
        alone = [add(model) for _ in range(20)]
    """)
    assert program.get("alone") == [8] * 20
    assert program.get("line.use.answered - answered") == 0
    assert program.get("[add(session), add(session)]") == [9, 10]
    assert program.get("sum(counts())") == 0  # of the replicas that are still used
    assert program.get("ray.get(line.actor.session_count.remote())") == 1
    program.do("dispatcher.set_routes(replace(routes, replicas=tuple(there)))")
    assert program.get("[add(session), add(model)]") == [11, 8]
    program.do("session.close()")
    assert program.get("ray.get(line.actor.session_count.remote())") == 0
    wait_until(lambda: not program.get("line.carrier._lane.is_open"), every_s=0.01)
    assert program.get("[len(dispatcher._retired), line.under_way]") == [0, 0]


def test_sessions_of_a_replica_that_is_ended_are_told_and_no_others(open_pair):
    program = open_pair()
    program.do("""
        gone, kept = model.create_session(), model.create_session()
        add(gone), add(kept)
        line = replica_of(gone)
        dispatcher = model._dispatcher
        there = [(each.route, each.info, each.actor) for each in dispatcher._lines.values()]
        left = [each for each in there if each[0].replica_id != line.route.replica_id]
        dispatcher.set_routes(
            ModelRoutes(dispatcher.key, dispatcher.generation, 10**9, tuple(left))
        )
        ray.kill(line.actor)
    """)

    def is_told():
        try:
            program.get("add(gone)")
        except DriverError as error:
            return error.name == "SessionLostError"
        return False

    wait_until(is_told, every_s=0.01)
    assert program.get("add(kept)") == 9


def test_a_session_of_a_model_that_was_unloaded_says_that(open_pair):
    program = open_pair()
    program.do("session = model.create_session()\nadd(session)")
    program.do("runtime.unload('test_a_session_of_a_model_that_was_unloaded_says_that')")

    told = []

    def is_told():
        try:
            program.get("add(session)")
        except DriverError as error:
            told.append(error.name)
        return told[-1:] == ["ModelNotLoadedError"]

    wait_until(is_told)
    assert set(told) <= {"ModelNotLoadedError", "SessionLostError"}
    program.do("session.close()")


def test_an_interrupted_program_is_told_that_its_sessions_are_lost(open_pair):
    program = open_pair()
    program.do("""
        session = model.create_session()
        add(session)
        try:
            timer = __import__("threading").Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            while True:
                add(session)
        except KeyboardInterrupt:
            pass
    """)
    with pytest.raises(DriverError, match="SessionLostError"):
        program.get("[add(session) for _ in range(3)]")
    assert program.get("add(model.create_session())") == 8


def test_sessions_travel_over_tcp_too(open_pair, cluster, start_driver):
    driver = start_driver({"RAY_ADDRESS": cluster.address, "ATRIVA_LANES": "tcp"})
    driver.do("""
        import numpy as np, ray, os
        from atriva_ray import *
        runtime = InferenceRuntime()
    """)
    program = open_pair(driver)
    program.do("""
        session = model.create_session()
        sums = [add(session) for _ in range(3)]
        state = session.state["total"].tolist()
    """)
    assert program.get("[sums, state]") == [[8, 9, 10], [[10, 10, 10]]]


def test_without_lanes_there_are_no_sessions_and_that_is_said(open_pair, cluster, start_driver):
    driver = start_driver({"RAY_ADDRESS": cluster.address, "ATRIVA_LANES": "off"})
    driver.do("""
        import numpy as np, ray, os
        from atriva_ray import *
        runtime = InferenceRuntime()
    """)
    program = open_pair(driver)
    with pytest.raises(DriverError, match=r"LaneError.*sessions need a lane"):
        program.do("model.create_session()")
    assert program.get("[add(model), add(model)]") == [8, 8]


def test_plain_calls_through_the_router_stand_alone(open_pair):
    program = open_pair()
    program.do("""
        session = model.create_session()
        add(session)
        name = model.key
        calls = [ray.get(runtime.router.infer.remote(name, one)) for _ in range(6)]
        sums = [float(answer["sum"].to_numpy()[0, 0]) for answer in calls]
    """)
    assert program.get("sums") == [8] * 6
    assert program.get("add(session)") == 9
