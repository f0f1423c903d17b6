"""`router.infer`, the plain actor method, from any Ray program."""

from __future__ import annotations

import pytest

from tests.cluster.tools import DriverError
from tests.conftest import EXAMPLES, LIGHT_MODELS, MODELS

DIGITS = str(EXAMPLES / "models" / "digits.onnx")


@pytest.fixture(scope="module")
def program(cluster, module_drivers):
    driver = module_drivers.join(cluster.address)
    driver.do(f"""
        from atriva_ray import get_router
        model = runtime.load_model({DIGITS!r}, name="digits", replicas=2)
        router = get_router()
        actor = ray.get_actor("atriva-router", namespace="atriva")
        image = np.load({str(EXAMPLES / "models" / "digits_heldout.npz")!r})["images"][:1]
    """)
    return driver


def test_a_plain_call_answers_as_the_model_does(program):
    program.do("""
        relayed = ray.get(router.infer.remote("digits", {"input": image}))["output"].to_numpy()
        direct = model.run({"input": image})["output"].to_numpy()
    """)
    assert program.get("bool(np.array_equal(relayed, direct))")


def test_the_bare_actor_answers_too(program):
    program.do("""
        from_actor = ray.get(actor.infer.remote("digits", {"input": image}))["output"].to_numpy()
        many = np.repeat(image, 2000, axis=0).astype("f4")
        wide = ray.get(actor.infer.remote("digits", {"input": many}))["output"]
    """)
    assert program.get("from_actor.shape, wide.shape") == [[1, 10], [2000, 10]]


def test_a_handle_travels_to_other_ray_programs(program):
    program.do("""
        @ray.remote(num_cpus=0)
        def ask(handle, image):
            return ray.get(handle.infer.remote("digits", {"input": image}))["output"].shape
        shape = ray.get(ask.remote(router, image))
    """)
    assert program.get("shape") == [1, 10]


def test_a_reference_passes_the_router(program):
    program.do("""
        many = np.repeat(image, 2000, axis=0).astype("f4")
        by_reference = ray.get(router.infer.remote("digits", {"input": ray.put(many)}))["output"]
        by_value = ray.get(router.infer.remote("digits", {"input": many}))["output"]
    """)
    assert program.get("many.nbytes > 100 * 1024")
    assert program.get("by_reference.shape") == [2000, 10]
    assert program.get("bool(np.array_equal(np.asarray(by_reference), by_value.to_numpy()))")


def test_large_outputs_come_as_references(program):
    program.do(f"""
        wide = runtime.load_model({str(MODELS / "onnx" / "half.onnx")!r}, name="wide")
        port = wide.inputs[0]
        shape = [dim if dim > 0 else 300_000 for dim in port.shape]
        value = np.ones(shape, port.dtype)
        answer = ray.get(router.infer.remote("wide", {{port.name: value}}))
        tensor = next(iter(answer.values()))
    """)
    assert program.get("tensor.shape") == program.get("shape")
    assert program.get("float(tensor.to_numpy().reshape(-1)[0])") == 3.0


def test_requests_are_balanced_over_the_replicas(program):
    program.do("""
        answers = ray.get([router.infer.remote("digits", {"input": image}) for _ in range(100)])
    """)
    assert program.get("len(answers)") == 100
    assert program.get("len(ray.get(router.status.remote())['digits']['replicas'])") == 2


def test_errors_keep_their_class_and_fields(program):
    program.do("""
        try:
            ray.get(router.infer.remote("digits", {"nope": image}))
        except InputNameError as error:
            caught = error
    """)
    assert program.get("list(caught.unknown), list(caught.names)") == [["nope"], ["input"]]
    with pytest.raises(DriverError, match="no model 'other' is loaded"):
        program.get("ray.get(router.infer.remote('other', {}))")
    assert program.get("model.run({'input': image})['output'].shape") == [1, 10]


def test_a_real_model_through_the_router(program):
    program.do(f"""
        net = runtime.load_model({str(LIGHT_MODELS / "light_squeezenet.onnx")!r}, name="squeeze")
        frame = np.random.default_rng(0).random((1, 3, 224, 224), "f4")
        relayed = ray.get(router.infer.remote("squeeze", {{"data_0": ray.put(frame)}}))
        direct = net.run({{"data_0": frame}})
    """)
    assert program.get(
        "bool(np.allclose(np.asarray(relayed['softmaxout_1']), direct['softmaxout_1'].to_numpy()))"
    )
