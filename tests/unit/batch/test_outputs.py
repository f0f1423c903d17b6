"""From a model's answers to columns: types, shapes and the best entries."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from atriva_inference.errors import OptionError
from atriva_inference.ports import Port, batch_axis
from atriva_ray.batch.outputs import OutputColumns, TopK

SCORES = ("a", "b", "c", "d")


def port(shape, dtype="float32", name="y", aliases=()):
    return Port(name, (name, *aliases), np.dtype(dtype), shape)


def table(ports, answers, top_k=None):
    """Return the columns of answers as a table, whose types must be as announced."""
    columns = OutputColumns(ports, top_k)
    return pa.table(columns.columns(answers), schema=columns.schema)


def one(port_, answers, top_k=None):
    return table([port_], {port_.name: np.asarray(answers)}, top_k)


def tensors(column):
    return np.concatenate([chunk.to_numpy_ndarray() for chunk in column.chunks])


@pytest.mark.parametrize(
    ("shape", "is_batch"),
    [
        ((-1,), True),
        ((1,), True),
        ((-1, 3), True),
        ((1, 3), True),
        ((3, 1), False),
        ((2,), False),
        ((), False),
        (None, False),
    ],
)
def test_the_first_dimension_counts_samples_if_it_is_dynamic_or_one(shape, is_batch):
    assert batch_axis(port(shape)) is is_batch


# -- types -----------------------------------------------------------------------------------

DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
]


def extremes(dtype, shape):
    """Return an array that begins with the smallest and largest values there are."""
    dtype = np.dtype(dtype)
    values = np.zeros(shape, dtype)
    if dtype.kind == "b":
        values.flat[:2] = [True, False]
    elif dtype.kind in "iu":
        values.flat[:2] = [np.iinfo(dtype).min, np.iinfo(dtype).max]
    else:
        values.flat[:4] = [np.finfo(dtype).max, -np.inf, np.nan, np.finfo(dtype).tiny]
    return values


@pytest.mark.parametrize("dtype", DTYPES)
def test_fixed_shapes_become_tensors_of_the_same_type(dtype):
    answers = extremes(dtype, (4, 2, 3))
    made = one(port((-1, 2, 3), dtype), answers)
    assert made.schema.field("y").type.shape == [2, 3]
    assert made.schema.field("y").type.value_type == pa.from_numpy_dtype(dtype)
    read = np.array(made["y"].combine_chunks().storage.to_pylist(), dtype).reshape(4, 2, 3)
    assert np.array_equal(read, answers, equal_nan=np.dtype(dtype).kind == "f")
    if dtype != "bool":  # of which Arrow makes no array
        assert np.array_equal(tensors(made["y"]), answers, equal_nan=answers.dtype.kind == "f")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(-1,), (1,), (), (-1, 1), (1, 1, 1)])
def test_one_number_per_row_is_a_plain_column(shape, dtype):
    answers = extremes(dtype, 5)
    made = one(port(shape, dtype), answers.reshape(5, *shape[1:]))
    assert made.schema.field("y").type == pa.from_numpy_dtype(dtype)
    read = np.array(made["y"].to_pylist(), dtype)
    assert np.array_equal(read, answers, equal_nan=np.dtype(dtype).kind == "f")


@pytest.mark.parametrize("dtype", DTYPES)
def test_dynamic_shapes_become_lists(dtype):
    answers = extremes(dtype, (2, 2, 3))
    made = one(port((-1, 2, -1), dtype), answers)
    assert made.schema.field("y").type == pa.list_(pa.list_(pa.from_numpy_dtype(dtype)))
    read = np.array(made["y"].to_pylist(), dtype)
    assert np.array_equal(read, answers, equal_nan=np.dtype(dtype).kind == "f")


def test_dynamic_shapes_may_be_empty():
    assert one(port((-1, -1)), np.zeros((2, 0), np.float32))["y"].to_pylist() == [[], []]


def test_a_model_without_a_batch_dimension_keeps_its_shape():
    made = one(port((3, 2)), np.arange(6, dtype=np.float32).reshape(1, 3, 2))
    assert tensors(made["y"]).tolist() == [[[0, 1], [2, 3], [4, 5]]]


@pytest.mark.parametrize("answer", [7.0, [7.0], [1, 2, 3], [[1, 2], [3, 4]], np.zeros((2, 0))])
def test_an_output_of_any_rank_becomes_a_flat_list(answer):
    answer = np.asarray(answer, np.float32)
    made = one(port(None), answer[np.newaxis])
    assert made.schema.field("y").type == pa.list_(pa.float32())
    assert made["y"].to_pylist() == [answer.ravel().tolist()]


@pytest.mark.parametrize("dtype", ["O", "U", "S"])
@pytest.mark.parametrize(
    ("shape", "answers", "expected"),
    [
        ((-1,), ["one", "zwei"], ["one", "zwei"]),
        ((-1, 1), [["one"], ["zwei"]], ["one", "zwei"]),
        ((), ["drei"], ["drei"]),
        ((-1, 2), [["a", ""], ["b", "c"]], [["a", ""], ["b", "c"]]),
        ((-1, -1), [["a"], ["b"]], [["a"], ["b"]]),
        ((2, 2), [[["a", "b"], ["c", "d"]]], [[["a", "b"], ["c", "d"]]]),
    ],
)
def test_text_becomes_text(dtype, shape, answers, expected):
    made = one(port(shape, dtype), np.array(answers, object if dtype == "O" else dtype))
    assert made["y"].to_pylist() == expected


def test_text_of_other_alphabets():
    texts = ["größer", "犬", "", "a\nb\0c"]
    assert one(port((-1,), "O"), np.array(texts, object))["y"].to_pylist() == texts
    answers = np.array([text.encode() for text in texts], object)
    assert one(port((-1,), "O"), answers)["y"].to_pylist() == texts


memory_orders = st.sampled_from(["C", "F", "reversed", "every other", "new axis", "moved"])


@given(
    st.integers(1, 3),
    arrays.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=3),
    memory_orders,
)
def test_it_does_not_matter_how_answers_lie_in_memory(count, shape, order):
    plain = np.arange(count * np.prod(shape), dtype=np.float32).reshape(count, *shape)
    match order:
        case "C" | "F":
            answers = np.array(plain, order=order)
        case "reversed":
            answers = plain[::-1].copy()[::-1]
        case "every other":
            answers = np.repeat(plain, 2, axis=0)[::2]
        case "new axis":
            answers = np.stack([*plain])[:, ...] if count > 1 else plain[0][np.newaxis]
        case "moved":
            answers = np.moveaxis(np.moveaxis(plain, 0, -1).copy(), -1, 0)
    column = one(port((-1, *shape)), answers)["y"]
    if all(side == 1 for side in shape):
        assert column.to_pylist() == plain.ravel().tolist()
    else:
        assert np.array_equal(tensors(column), plain)


def test_columns_come_in_the_order_of_the_models_outputs():
    ports = [port((-1, 2), name="b"), port((-1,), "int64", name="a")]
    made = table(ports, {"a": np.array([7]), "b": np.array([[1, 2]], np.float32)})
    assert made.column_names == ["b", "a"]
    assert made["a"].to_pylist() == [7]


# -- the best entries ------------------------------------------------------------------------


def test_the_best_entry_alone():
    made = one(port((-1, 4)), np.float32([[0, 3, 1, 2], [9, 8, 7, 6]]), TopK(1))
    assert made.to_pylist() == [{"class": 1, "score": 3.0}, {"class": 0, "score": 9.0}]
    assert made.schema.types == [pa.int32(), pa.float32()]


def test_several_entries_with_labels():
    made = one(port((-1, 4)), np.float32([[0, 3, 1, 2]]), TopK(2, labels=SCORES))
    assert made.to_pylist() == [
        {
            "class": 1,
            "label": "b",
            "score": 3.0,
            "top_classes": [1, 3],
            "top_labels": ["b", "d"],
            "top_scores": [3.0, 2.0],
        }
    ]


def test_one_entry_with_labels():
    made = one(port((-1, 4)), np.float32([[0, 3, 1, 2]]), TopK(1, labels=SCORES))
    assert made.to_pylist() == [{"class": 1, "label": "b", "score": 3.0}]


def test_all_entries():
    made = one(port((-1, 4)), np.float32([[0, 3, 1, 2]]), TopK(4))
    assert made["top_classes"].to_pylist() == [[1, 3, 2, 0]]


def test_equal_scores_come_in_the_order_of_their_numbers():
    made = one(port((-1, 4)), np.float32([[1, 2, 2, 1], [0, 0, 0, 0]]), TopK(4))
    assert made["top_classes"].to_pylist() == [[1, 2, 0, 3], [0, 1, 2, 3]]


def test_what_is_no_number_comes_last():
    nan, inf = np.nan, np.inf
    made = one(port((-1, 4)), np.float32([[nan, -inf, inf, 0], [nan] * 4]), TopK(4))
    assert made["top_classes"].to_pylist() == [[2, 3, 1, 0], [0, 1, 2, 3]]
    assert np.isnan(made["score"].to_pylist()[1])


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "bool"])
def test_the_best_of_any_numbers(dtype):
    largest = 60_000 if dtype.startswith("float") else np.iinfo(dtype).max
    answers = np.array([[0, largest, 1, largest // 2]], dtype)
    made = one(port((-1, 4), dtype), answers, TopK(3))
    assert made["top_classes"].to_pylist() == [[1, 3, 2]]


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_large_integers_are_told_apart(dtype):
    answers = np.array([[2**53, 2**53 + 1, 2**53 + 2, 0]], dtype)
    made = one(port((-1, 4), dtype), answers, TopK(3))
    assert made["top_classes"].to_pylist() == [[2, 1, 0]]


def test_the_smallest_integer_is_the_worst():
    lowest = np.iinfo(np.int64).min
    made = one(port((-1, 3), "int64"), np.array([[lowest, 0, lowest + 1]]), TopK(3))
    assert made["top_classes"].to_pylist() == [[1, 2, 0]]


def test_entries_of_an_output_with_several_dimensions_are_numbered_throughout():
    made = one(port((1, 2, 3)), np.float32([[[0, 1, 2], [5, 4, 3]]]), TopK(2))
    assert made["top_classes"].to_pylist() == [[3, 4]]


def test_other_outputs_stay_as_they_are():
    ports = [port((-1, 2), name="box"), port((-1, 4), name="logits", aliases=("scores",))]
    answers = {"box": np.float32([[1, 2]]), "logits": np.float32([[0, 1, 3, 2]])}
    made = table(ports, answers, TopK(1, "scores"))
    assert made.column_names == ["class", "score", "box"]
    assert made["class"].to_pylist() == [2]
    assert tensors(made["box"]).tolist() == [[1, 2]]


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 6)), unique=False),
    st.data(),
)
def test_the_best_are_the_best(answers, data):
    count = data.draw(st.integers(1, answers.shape[1]))
    made = one(port((-1, answers.shape[1])), answers, TopK(count))
    for row, best in zip(answers, made.to_pylist(), strict=True):
        numbers = best["top_classes"] if count > 1 else [best["class"]]
        expected = sorted(
            range(len(row)), key=lambda i: (np.isnan(row[i]), -row[i] if row[i] == row[i] else 0, i)
        )
        assert numbers == expected[:count]
        assert best["class"] == numbers[0]
        assert np.array_equal(np.float32(best["score"]), row[numbers[0]], equal_nan=True)


def test_of_a_dynamic_output_there_may_be_fewer():
    made = one(port((-1, -1)), np.float32([[1, 2]]), TopK(3))
    assert made["top_classes"].to_pylist() == [[1, 0]]


def test_of_a_dynamic_output_there_may_be_none():
    made = one(port((-1, -1)), np.zeros((2, 0), np.float32), TopK(3))
    assert made.to_pylist() == 2 * [
        {"class": None, "score": None, "top_classes": [], "top_scores": []}
    ]


def test_an_entry_may_have_no_label():
    top_k = TopK(2, labels=("a", "b"))
    made = one(port((-1, -1)), np.float32([[1, 2, 3]]), top_k)
    assert made["label"].to_pylist() == [None]
    assert made["top_labels"].to_pylist() == [[None, "b"]]
    assert made["top_classes"].to_pylist() == [[2, 1]]


@pytest.mark.parametrize("count", [0, -1, 5])
def test_a_number_of_entries_that_there_are_not(count):
    with pytest.raises(OptionError, match=f"top_k='{count}' is not acceptable; expected 1 to 4"):
        OutputColumns([port((-1, 4))], TopK(count))


@pytest.mark.parametrize("count", [0, -1])
def test_of_a_dynamic_output_at_least_one(count):
    with pytest.raises(OptionError, match="1 to the size of the output"):
        OutputColumns([port((-1, -1))], TopK(count))


def test_of_one_number_the_best_one():
    assert one(port((-1,)), np.float32([4, 5]), TopK(1)).to_pylist() == [
        {"class": 0, "score": 4.0},
        {"class": 0, "score": 5.0},
    ]
    with pytest.raises(OptionError, match="1 to 1"):
        OutputColumns([port((-1,))], TopK(2))


def test_labels_must_be_as_many_as_entries():
    with pytest.raises(OptionError, match=r"labels='3 of them'.*4, one per entry of 'y'"):
        OutputColumns([port((-1, 4))], TopK(1, labels=("a", "b", "c")))


@pytest.mark.parametrize("dtype", ["O", "bool"])
def test_the_best_of_what_are_no_numbers(dtype):
    with pytest.raises(OptionError, match="an output of numbers"):
        OutputColumns([port((-1, 4), dtype)], TopK(1))


def test_of_several_outputs_one_must_be_named():
    ports = [port((-1, 4), name="box"), port((-1, 4), name="logits")]
    with pytest.raises(OptionError, match="one of 'box', 'logits'"):
        OutputColumns(ports, TopK(1))
    with pytest.raises(OptionError, match=r"top_k output='scores'.*one of 'box', 'logits'"):
        OutputColumns(ports, TopK(1, "scores"))
