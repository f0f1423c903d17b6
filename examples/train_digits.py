"""Train a small convolutional digit classifier and export it to ONNX.

The data is scikit-learn's bundled `load_digits` set: 1,797 grey images of 8x8 pixels with values
0 to 16. A fixed stratified split holds out 360 images. The script writes two files:

* `digits.onnx`: `input` float32 `[batch, 1, 8, 8]`, raw pixel values 0 to 16, and `output` float32
  `[batch, 10]`, class probabilities.
* `digits_heldout.npz`: the held-out `images` (uint8 `[360, 1, 8, 8]`) and `labels` (int64 `[360]`).

It needs jax, optax, onnx, numpy and scikit-learn, and takes under a minute on two CPU cores.
The same package versions on the same number of cores give the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import onnx
import optax
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Params = dict[str, jax.Array]

CLASS_NAMES = [str(digit) for digit in range(10)]
PIXEL_MAX = 16.0
HELDOUT_COUNT = 360
SPLIT_SEED = 0  # Independent of --seed, so that all models are judged on the same images.
BATCH_SIZE = 64
LEARNING_RATE = 3e-3


def load_split() -> tuple[Array, Array, Labels, Labels]:
    """Returns train images, held-out images, train labels and held-out labels."""
    digits = load_digits()
    images = digits.images.astype(np.float32)[:, np.newaxis, :, :]
    labels = digits.target.astype(np.int64)
    split = train_test_split(
        images, labels, test_size=HELDOUT_COUNT, stratify=labels, random_state=SPLIT_SEED
    )
    return split[0], split[1], split[2], split[3]


def init_params(seed: int) -> Params:
    """Draws He-normal weights; the shapes are those ONNX `Conv` and `Gemm` expect."""
    shapes = {"conv1": (12, 1, 3, 3), "conv2": (24, 12, 3, 3), "dense": (24 * 4 * 4, 10)}
    rng = np.random.default_rng(seed)
    params: Params = {}
    for name, shape in shapes.items():
        fan_in = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
        weight = rng.normal(0.0, np.sqrt(2.0 / fan_in), shape)
        params[f"{name}.weight"] = jnp.asarray(weight, jnp.float32)
        params[f"{name}.bias"] = jnp.zeros(shape[-1] if len(shape) == 2 else shape[0], jnp.float32)
    return params


def conv_relu(params: Params, name: str, x: jax.Array) -> jax.Array:
    """3x3 convolution with same padding, then ReLU, on NCHW tensors."""
    y = jax.lax.conv_general_dilated(x, params[f"{name}.weight"], (1, 1), "SAME")
    return jax.nn.relu(y + params[f"{name}.bias"][:, jnp.newaxis, jnp.newaxis])


def logits_of(params: Params, pixels: jax.Array) -> jax.Array:
    """The network: scale, conv, conv, 2x2 max pool, dense."""
    x = conv_relu(params, "conv1", pixels / PIXEL_MAX)
    x = conv_relu(params, "conv2", x)
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return jnp.matmul(x.reshape(x.shape[0], -1), params["dense.weight"]) + params["dense.bias"]


def loss_of(params: Params, pixels: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross entropy."""
    logits = logits_of(params, pixels)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


@partial(jax.jit, static_argnums=0)
def train_step(
    optimizer: optax.GradientTransformation,
    params: Params,
    state: optax.OptState,
    pixels: jax.Array,
    labels: jax.Array,
) -> tuple[Params, optax.OptState, jax.Array]:
    """Applies one gradient step."""
    loss, grads = jax.value_and_grad(loss_of)(params, pixels, labels)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss


def shuffled_batches(
    images: Array, labels: Labels, rng: np.random.Generator
) -> Iterator[tuple[Array, Labels]]:
    """Yields one epoch of full batches, each image shifted by -1, 0 or 1 pixel on each axis."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[2:], axis=(2, 3))
    order = rng.permutation(len(images))
    for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
        picked = order[start : start + BATCH_SIZE]
        rows, columns = rng.integers(0, 3, size=(2, BATCH_SIZE))
        yield windows[picked, :, rows, columns], labels[picked]


def accuracy_of(params: Params, images: Array, labels: Labels) -> float:
    """Share of images whose most probable class is the label."""
    predicted = np.asarray(jnp.argmax(logits_of(params, jnp.asarray(images)), axis=1))
    return float(np.mean(predicted == labels))


def train(
    images: Array, labels: Labels, heldout: tuple[Array, Labels], epochs: int, seed: int
) -> Params:
    """Trains with AdamW on a cosine schedule, printing one line per epoch."""
    rng, params = np.random.default_rng(seed), init_params(seed)
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, epochs * (len(images) // BATCH_SIZE))
    optimizer = optax.adamw(schedule, weight_decay=1e-2)
    state = optimizer.init(params)
    for epoch in range(1, epochs + 1):
        losses = []
        for batch in shuffled_batches(images, labels, rng):
            params, state, loss = train_step(optimizer, params, state, *map(jnp.asarray, batch))
            losses.append(float(loss))
        accuracy = accuracy_of(params, *heldout)
        print(f"epoch {epoch:3d}/{epochs}: loss {np.mean(losses):.4f}, accuracy {accuracy:.4f}")
    return params


def to_onnx(params: Params, provenance: str) -> onnx.ModelProto:
    """Rebuilds the network as an ONNX graph around the trained weights."""
    conv: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Div", ["input", "pixel_max"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "conv1.weight", "conv1.bias"], ["c1"], **conv),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "conv2.weight", "conv2.bias"], ["c2"], **conv),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("MaxPool", ["r2"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "dense.weight", "dense.bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["output"], axis=1),
    ]
    weights = {name: np.asarray(value) for name, value in params.items()}
    weights["pixel_max"] = np.array(PIXEL_MAX, dtype=np.float32)
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(weights[name], name) for name in sorted(weights)],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="train_digits.py",
        doc_string=provenance,
    )
    helper.set_model_props(model, {"labels": json.dumps(CLASS_NAMES), "provenance": provenance})
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Parses the command line, trains, and writes the model and the held-out images."""
    parser = argparse.ArgumentParser(description="Train a digit classifier, export it to ONNX.")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "models")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    train_x, heldout_x, train_y, heldout_y = load_split()
    params = train(train_x, train_y, (heldout_x, heldout_y), args.epochs, args.seed)
    accuracy = accuracy_of(params, heldout_x, heldout_y)
    provenance = (
        f"Made by examples/train_digits.py --epochs {args.epochs} --seed {args.seed} from "
        f"scikit-learn's load_digits; accuracy {accuracy:.4f} on {HELDOUT_COUNT} held-out images."
    )
    args.output.mkdir(parents=True, exist_ok=True)
    model_bytes = to_onnx(params, provenance).SerializeToString(deterministic=True)
    (args.output / "digits.onnx").write_bytes(model_bytes)
    heldout_pixels = heldout_x.astype(np.uint8)
    np.savez_compressed(args.output / "digits_heldout.npz", images=heldout_pixels, labels=heldout_y)
    print(f"held-out accuracy {accuracy:.4f}; wrote digits.onnx ({len(model_bytes)} bytes)")


if __name__ == "__main__":
    main()
