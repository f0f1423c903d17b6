from __future__ import annotations

import numpy as np
import pytest

from atriva_inference.errors import InputDtypeError, InputShapeError, OptionError
from atriva_inference.ports import Port
from atriva_inference.tensor import Tensor
from atriva_ray.bench.inputs import batch_size, make_inputs, shaped

IMAGE = Port("image", ("image", "image:0"), np.dtype("f4"), (1, 3, 6, 4), "NCHW")
BATCHES = Port("batches", ("batches",), np.dtype("u1"), (-1, 5), None)
FREE = Port("free", ("free",), np.dtype("f2"), (1, 3, -1, -1), "NCHW")


def test_random_inputs_fit_the_ports():
    first, second = make_inputs([IMAGE, BATCHES], {}, 2)
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in first.items()} == {
        "image": (np.float32, (1, 3, 6, 4)),
        "batches": (np.uint8, (1, 5)),
    }
    assert not first["image"].specialise
    assert not np.shares_memory(first["image"].to_numpy(), second["image"].to_numpy())


def test_a_shape_is_compiled_for_where_the_input_is_dynamic():
    (inputs,) = make_inputs([FREE, IMAGE], {"free": (1, 3, 8, 9), "image:0": (1, 3, 6, 4)}, 1)
    assert inputs["free"].shape == (1, 3, 8, 9)
    assert inputs["free"].specialise
    assert not inputs["image"].specialise


def test_the_only_input_needs_no_name():
    (inputs,) = make_inputs([BATCHES], {"": (7, 5)}, 1)
    assert inputs["batches"].shape == (7, 5)


@pytest.mark.parametrize(
    ("ports", "shapes", "error", "words"),
    [
        ([FREE], {}, InputShapeError, "-shape"),
        ([FREE], {"": (1, 4, 2, 2)}, InputShapeError, "fits"),
        ([FREE, IMAGE], {"": (1, 3, 2, 2)}, OptionError, "'free', 'image'"),
        ([IMAGE], {"picture": (1, 3, 6, 4)}, OptionError, "'image'"),
        ([Port("t", ("t",), np.dtype("U"), (1,))], {}, InputDtypeError, "-i"),
        ([Port("r", ("r",), np.dtype("f4"), None)], {}, InputShapeError, "-shape"),
    ],
)
def test_what_cannot_be_made_up(ports, shapes, error, words):
    with pytest.raises(error, match=words):
        make_inputs(ports, shapes, 1)


def test_own_inputs_take_the_shape_asked_for():
    own = shaped([FREE], {"": (1, 3, 2, 2)}, {"free": Tensor(np.zeros(12, np.float16))})
    assert own["free"].shape == (1, 3, 2, 2)
    assert own["free"].specialise
    plain = shaped([IMAGE], {}, {"image:0": Tensor(np.zeros((1, 3, 6, 4), np.float32))})
    assert not plain["image"].specialise


def test_the_batch_is_the_axis_called_n():
    (inputs,) = make_inputs([Port("x", ("x",), np.dtype("f4"), (8, 3, 2, 2), "NCHW")], {}, 1)
    assert batch_size([Port("x", ("x",), np.dtype("f4"), (8, 3, 2, 2), "NCHW")], inputs) == 8
    assert batch_size([BATCHES], make_inputs([BATCHES], {"": (9, 5)}, 1)[0]) == 1
