"""Graph convolutions: topology-adaptive layers, the paper's and the published code's."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch_geometric.nn import MessagePassing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["OneHopConv", "TopologyAdaptiveConv"]


class TopologyAdaptiveConv(MessagePassing):
    r"""Topology-adaptive graph convolution, :math:`\sum_{k=0}^{K} A^k X W_k + b`.

    Du et al. 2017, equation 2. Computed as :math:`XW_0 + A(XW_1 + A(XW_2 + \dots))`, so that what
    travels along the edges has the width of the output, which is the narrow side; the result and
    the parameters are those of :class:`torch_geometric.nn.TAGConv` without normalisation.

    Parameters
    ----------
    n_input, n_output
        Widths.
    n_hops
        Highest power of the adjacency.
    """

    def __init__(self, n_input: int, n_output: int, n_hops: int) -> None:
        super().__init__(aggr="add")
        self.n_hops = n_hops
        self.lins = nn.ModuleList(
            nn.Linear(n_input, n_output, bias=False) for _ in range(n_hops + 1)
        )
        self.bias = nn.Parameter(torch.zeros(n_output))
        for lin in self.lins:
            nn.init.xavier_uniform_(cast("nn.Linear", lin).weight)

    def forward(
        self,
        x: torch.Tensor,
        edge_index: torch.Tensor,
        edge_weight: torch.Tensor,
        wanted: Sequence[tuple[int, int]] | None = None,
        others: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Convolve.

        Parameters
        ----------
        x
            Nodes x inputs.
        edge_index
            Source and target of each edge, 2 x edges.
        edge_weight
            Weight of each edge.
        wanted
            For each hop, the first for the result itself: how many leading nodes are wanted, and
            how many leading edges end in them. All by default.
        others
            More nodes, after those of `x`, that want no gradient.

        Returns
        -------
        Wanted nodes x outputs.
        """
        n_nodes = len(x) if others is None else len(x) + len(others)

        def own(hop: int, nodes: int) -> torch.Tensor:
            lin = self.lins[hop]
            if others is None or nodes <= len(x):
                return lin(x[:nodes])
            return torch.cat([lin(x), lin(others[: nodes - len(x)])])

        out = own(self.n_hops, n_nodes)
        for hop in range(self.n_hops - 1, -1, -1):
            nodes, edges = (n_nodes, edge_index.shape[1]) if wanted is None else wanted[hop]
            received = self.propagate(
                edge_index[:, :edges],
                x=out,
                edge_weight=edge_weight[:edges],
                size=(len(out), nodes),
            )
            out = own(hop, nodes) + received
        return out + self.bias

    def message(self, x_j: torch.Tensor, edge_weight: torch.Tensor) -> torch.Tensor:
        """Weigh what an edge carries."""
        return edge_weight[:, None] * x_j

    def of_smoothed(self, smoothed: list[torch.Tensor]) -> torch.Tensor:
        """Convolve nodes whose :math:`A^k x` are known, one matrix per power."""
        parts = [lin(x) for lin, x in zip(self.lins, smoothed, strict=True)]
        return torch.stack(parts).sum(dim=0) + self.bias


class OneHopConv(nn.Module):
    r"""The published layer as it is executed, :math:`XW_0 + AX(W_1 + W_2 + W_3) + b`.

    The published code propagates the original input in each turn of its loop, so that powers of
    the adjacency never arise. The three kernels stay apart, because their sum has three times the
    variance at the start and takes three steps of the optimiser at once.
    """

    N_KERNELS = 4

    def __init__(self, n_input: int, n_output: int) -> None:
        super().__init__()
        limit = (6.0 / (self.N_KERNELS * n_input + n_output)) ** 0.5
        kernel = torch.empty(self.N_KERNELS, n_input, n_output).uniform_(-limit, limit)
        self.kernel = nn.Parameter(kernel)
        self.bias = nn.Parameter(torch.zeros(n_output))

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        """Convolve; `adjacency` is nodes x nodes, dense or sparse."""
        return self.of_smoothed(x, lambda values: adjacency @ values)

    def of_smoothed(
        self, x: torch.Tensor, smooth: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Convolve, `smooth` being a function that applies the adjacency to a narrow matrix."""
        return x @ self.kernel[0] + smooth(x @ self.kernel[1:].sum(dim=0)) + self.bias
