"""A single CPU thread: what fails must fail there too."""

from __future__ import annotations

import numpy as np
import pytest

from atriva_inference import InferenceFailedError, InferenceRuntime


@pytest.mark.parametrize("hint", ["LATENCY", "THROUGHPUT"])
def test_impossible_shapes_are_refused(models, hint):
    with InferenceRuntime() as runtime:
        model = runtime.load_model(
            models / "onnx" / "data_dependent.onnx",
            performance_hint=hint,
            config={"INFERENCE_NUM_THREADS": 1},
        )
        assert model.parallelism == 1
        for _ in range(3):
            for shape in ([5, 5], [2, 4]):
                with pytest.raises(InferenceFailedError):
                    model.run({"data": np.arange(6, dtype="f4"), "shape": np.array(shape)})
            good = model.run({"data": np.arange(6, dtype="f4"), "shape": np.array([2, 3])})
            assert good["output"].shape == (2, 3)


def test_models_of_fixed_shape_keep_the_one_thread(models):
    with InferenceRuntime() as runtime:
        model = runtime.load_model(
            models / "onnx" / "conv.onnx", config={"INFERENCE_NUM_THREADS": 1}
        )
        assert model.run({"input": np.zeros((1, 3, 8, 8), "f4")})["output"].shape == (1, 4)
