"""The product of inputs with a matrix of which only some entries exist, in the faster of two ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evocompress.ideas.connections.drawing import Connections

__all__ = ["Product"]

# Measured forward and backward, 128 examples, one thread: the matrix wins from about 1 entry in 5 on, and below 2^16.
_DENSE_FROM, _SMALL_MATRIX, _LARGEST_MATRIX = 0.2, 1 << 16, 1 << 24


class Product(nn.Module):
    """y = x·Wᵀ, where W (outputs, inputs) has one value for each connection and is zero elsewhere.

    Many connections, or a small W: W is made, and multiplied with. Few, or a huge W: a sum over each output's own
    connections.

    Args:
        found: The connections.
        outputs, inputs: How many there are.
        first: The connections' value of this number is the first one that `forward` gets.
        device: Where to compute.
    """

    outputs: Tensor
    inputs: Tensor
    weights: Tensor
    starts: Tensor
    by_input: Tensor
    outputs_by_input: Tensor
    starts_by_input: Tensor

    def __init__(
        self, connections: Connections, outputs: int, inputs: int, first: int, device: torch.device | str | None
    ) -> None:
        super().__init__()
        self.shape = outputs, inputs
        size = outputs * inputs
        mostly_connected = len(connections.outputs) >= _DENSE_FROM * size
        self.dense = size <= _SMALL_MATRIX or (mostly_connected and size <= _LARGEST_MATRIX)
        # Whether each value has one connection, in this order; a kernel that meets no input has values without any.
        self.once = np.array_equal(connections.weights, np.arange(first, connections.n_kernel + connections.n_links))
        order = np.argsort(connections.inputs, kind="stable")
        buffers = {
            "outputs": connections.outputs,
            "inputs": connections.inputs,
            "weights": connections.weights - first,
            "starts": np.searchsorted(connections.outputs, np.arange(outputs)),
            "by_input": order,
            "outputs_by_input": connections.outputs[order],
            "starts_by_input": np.searchsorted(connections.inputs[order], np.arange(inputs)),
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.from_numpy(values).to(device), persistent=False)

    def forward(self, x: Tensor, values: Tensor) -> Tensor:
        """x (n, inputs) and values (m,) to (n, outputs)."""
        each = values if self.once else values.index_select(0, self.weights)
        if self.dense:
            matrix = each.new_zeros(self.shape).index_put((self.outputs, self.inputs), each)
            return nn.functional.linear(x, matrix)
        # torch's own gradient of the weights is fast; that of x is not, which _Turned takes over.
        columns = x.detach().to(each.dtype).t().contiguous()
        sums = _summed(self.inputs, columns, self.starts, each)
        y: Tensor = _Turned.apply(sums, x, each, self)  # type: ignore[no-untyped-call]
        return y


class _Turned(torch.autograd.Function):
    """Sums (outputs, n) to (n, outputs), with the gradient of the x that they are of.

    torch's gradient of `embedding_bag` sorts the connections at every step, and it reads a transposed array in its slow
    order: the two together took most of a training step.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(sums: Tensor, x: Tensor, each: Tensor, of: Product) -> Tensor:
        return sums.t().contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, x, each, ctx.of = inputs
        ctx.dtype = x.dtype
        ctx.save_for_backward(each)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the sums and of x; that of the weights comes by the sums."""
        rows, of, of_x = gradients[0].t().contiguous(), ctx.of, None
        if ctx.needs_input_grad[1]:
            (each,) = ctx.saved_tensors
            back = each.index_select(0, of.by_input)
            of_x = _summed(of.outputs_by_input, rows, of.starts_by_input, back).t().contiguous().to(ctx.dtype)
        return rows, of_x, None, None


def _summed(places: Tensor, columns: Tensor, starts: Tensor, each: Tensor) -> Tensor:
    """Weighted sums of columns' rows, each from its start to the next one's."""
    return nn.functional.embedding_bag(places, columns, starts, mode="sum", per_sample_weights=each)
