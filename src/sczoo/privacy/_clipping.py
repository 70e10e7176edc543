r"""Clipped sums of per-unit gradients, without ever forming a gradient per unit.

For a linear layer the gradient of unit :math:`u` is :math:`\sum_v \delta_{uv} a_{uv}^\top` over
its views :math:`v` (masked copies of a cell, or the cells of a donor), with the inputs :math:`a`
and the gradients :math:`\delta` of the outputs. Its norm needs no matrix of the layer's size:

.. math:: \lVert g_u \rVert^2 = \sum_{v,w} (\delta_{uv} \cdot \delta_{uw}) (a_{uv} \cdot a_{uw}),

and the clipped sum :math:`\sum_u c_u g_u` is one product with :math:`c_u \delta_{uv}` in the place
of :math:`\delta_{uv}`. So one backward pass, which computes the :math:`\delta` alone, and one
product per layer are enough; an ordinary step costs the same (Bu et al. 2022, "book-keeping").
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from sczoo.errors import PrivacyError
from sczoo.privacy._layers import Centres, Offset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["UnitGradients"]

_KNOWN = (nn.Linear, nn.LayerNorm, Offset, Centres)
_COUPLING = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


@dataclass
class _Call:
    """One call of a layer: its input and output, both ``(units, ..., features)``."""

    inputs: torch.Tensor
    output: torch.Tensor


class UnitGradients:
    """Norms and clipped sums of the gradients of single units (cells or donors).

    Parameters
    ----------
    module
        Network whose first axis is the unit. Every trainable parameter must belong to a linear
        layer, a layer normalisation, :class:`~sczoo.privacy.Offset` or
        :class:`~sczoo.privacy.Centres`; anything else is refused, never ignored.
    groups
        Prefixes of parameter names for each group that is clipped on its own; by default all
        parameters are one group, ``"all"``.

    Raises
    ------
    PrivacyError
        A layer couples the units (batch normalisation), or has parameters of a kind for which no
        gradient per unit is known, or shares parameters with another layer.

    Examples
    --------
    >>> gradients = UnitGradients(network)
    >>> with gradients.record():
    ...     loss = per_cell_loss(network(x))  # shape (cells,)
    >>> clipped = gradients.clipped_sums(loss, 1.0)
    """

    def __init__(
        self, module: nn.Module, groups: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        self._layers: dict[str, nn.Module] = {}
        self._group_of: dict[str, str] = {}
        owners: dict[int, str] = {}
        groups = {"all": ("",)} if groups is None else groups
        for name, layer in module.named_modules():
            if isinstance(layer, _COUPLING):
                raise PrivacyError(
                    f"The layer {name!r} is a {type(layer).__name__}: it mixes the cells of a "
                    "minibatch, so that one cell changes the gradients of all others and clipping "
                    "bounds nothing. Use LayerNorm."
                )
            own = {
                key: parameter
                for key, parameter in layer.named_parameters(recurse=False)
                if parameter.requires_grad
            }
            if not own:
                continue
            if not isinstance(layer, _KNOWN):
                raise PrivacyError(
                    f"The layer {name!r} ({type(layer).__name__}) has the trainable parameters "
                    f"{sorted(own)}, for which no gradient per unit is known: they would be "
                    "trained without protection. Freeze them, or use Linear, LayerNorm, "
                    "sczoo.privacy.Offset or sczoo.privacy.Centres."
                )
            for key, parameter in own.items():
                if id(parameter) in owners:
                    raise PrivacyError(
                        f"{name}.{key} and {owners[id(parameter)]} are the same parameter: the "
                        "gradient of a unit would be the sum of both uses. Untie them."
                    )
                owners[id(parameter)] = f"{name}.{key}"
            self._layers[name] = layer
            self._group_of[name] = _find_group(name, groups)
        if not self._layers:
            raise PrivacyError("The network has no trainable parameter.")
        self.groups = tuple(groups)
        self._calls: dict[str, list[_Call]] = {}

    # --- recording ----------------------------------------------------------------------------

    @contextmanager
    def record(self) -> Iterator[None]:
        """Remember inputs and outputs of every layer that is called inside."""
        self._calls = {name: [] for name in self._layers}
        handles = [
            layer.register_forward_hook(self._remember(name))
            for name, layer in self._layers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _remember(self, name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            self._calls[name].append(_Call(inputs[0].detach(), output))

        return hook

    def _deltas(self, loss: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return inputs and output gradients of each layer, ``(units, views, features)``."""
        if loss.ndim != 1:
            raise PrivacyError(
                f"The loss has shape {tuple(loss.shape)}; one number per unit is needed."
            )
        used = {name: calls for name, calls in self._calls.items() if calls}
        outputs = [call.output for calls in used.values() for call in calls]
        if not outputs or not loss.requires_grad:
            return {}
        found = iter(torch.autograd.grad(loss.sum(), outputs, allow_unused=True))
        n_units = loss.shape[0]
        result = {}
        for name, calls in used.items():
            inputs, deltas = [], []
            for call in calls:
                delta = next(found)
                if delta is None:
                    continue
                inputs.append(_as_views(call.inputs, n_units, name))
                deltas.append(_as_views(delta, n_units, name))
            if deltas:
                result[name] = (torch.cat(inputs, 1), torch.cat(deltas, 1))
        self._calls = {}
        return result

    # --- results ------------------------------------------------------------------------------

    def norms(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the norm of every unit's gradient in each group, float64 of shape ``(units,)``.

        Uses up what was recorded.
        """
        return self._norms(self._deltas(loss), loss.shape[0], loss.device)

    def _norms(self, deltas: Any, n_units: int, device: Any) -> dict[str, torch.Tensor]:
        squares = {
            group: torch.zeros(n_units, dtype=torch.float64, device=device)
            for group in self.groups
        }
        for name, (inputs, delta) in deltas.items():
            squares[self._group_of[name]] += _square_norm(self._layers[name], inputs, delta)
        return {group: total.clamp_min(0).sqrt() for group, total in squares.items()}

    def clipped_sums(
        self,
        loss: torch.Tensor,
        max_grad_norm: float | Mapping[str, float],
        shared: Mapping[str, torch.Tensor] | None = None,
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Sum the units' gradients, each scaled down to at most `max_grad_norm`.

        Parameters
        ----------
        loss
            Loss of each unit, shape ``(units,)``, computed inside :meth:`record`; units may not
            depend on one another.
        max_grad_norm
            Largest norm, for all groups or for each; infinity for no clipping.
        shared
            A gradient, by parameter, that the gradient of every unit contains besides its own.
            Only for comparison with schemes that couple units: clipping then bounds nothing.

        Returns
        -------
        The clipped sum for every trainable parameter, by name; and the norms before clipping,
        by group.
        """
        deltas = self._deltas(loss)
        norms = self._norms(deltas, loss.shape[0], loss.device)
        if shared:
            self._add_shared(norms, deltas, shared)
        _leave_out(norms, deltas)
        factors = {}
        for group, norm in norms.items():
            bound = (
                max_grad_norm if isinstance(max_grad_norm, int | float) else (max_grad_norm[group])
            )
            factors[group] = _factors(norm, float(bound))
        sums: dict[str, torch.Tensor] = {}
        for name, layer in self._layers.items():
            own = [k for k, p in layer.named_parameters(recurse=False) if p.requires_grad]
            if name in deltas:
                inputs, delta = deltas[name]
                weight = factors[self._group_of[name]].to(delta.dtype)
                found = _weighted_sum(layer, inputs, delta, weight, own)
            else:
                found = {key: torch.zeros_like(getattr(layer, key)) for key in own}
            sums.update({f"{name}.{key}" if name else key: v for key, v in found.items()})
        for full, gradient in (shared or {}).items():
            group = self._group_of[full.rpartition(".")[0]]
            sums[full] = sums[full] + gradient * factors[group].sum().to(gradient.dtype)
        return sums, norms

    def _add_shared(
        self, norms: dict[str, torch.Tensor], deltas: Any, shared: Mapping[str, torch.Tensor]
    ) -> None:
        """Turn norms of the units' own gradients into those of the sums with the shared one."""
        squares = {group: norm.square() for group, norm in norms.items()}
        for full, gradient in shared.items():
            name, _, key = full.rpartition(".")
            group, gradient = self._group_of[name], gradient.double()
            squares[group] = squares[group] + gradient.square().sum()
            if name not in deltas:
                continue
            inputs, delta = (part.double() for part in deltas[name])
            if isinstance(self._layers[name], nn.Linear) and key == "weight":
                dots = ((delta @ gradient) * inputs).sum((1, 2))
            else:
                rows = _rows(self._layers[name], inputs, delta)[key]
                dots = (rows * gradient).flatten(1).sum(1)
            squares[group] = squares[group] + 2.0 * dots
        norms.update({group: square.clamp_min(0).sqrt() for group, square in squares.items()})

    def verify(self, loss: torch.Tensor, inputs: torch.Tensor) -> None:
        """Compare with ordinary gradients, and test that units do not depend on one another.

        Costs three backward passes; meant for the first minibatch of a run.

        Parameters
        ----------
        loss
            Loss of each unit, computed inside :meth:`record` from `inputs`.
        inputs
            What the units are computed from, ``(units, ...)``, with ``requires_grad``.

        Raises
        ------
        PrivacyError
            A parameter is used outside its layer, or the loss of a unit depends on others.
        """
        n_units = loss.shape[0]
        if n_units > 1:
            (reached,) = torch.autograd.grad(loss[::2].sum(), inputs, retain_graph=True)
            # what is no number comes from a unit's own loss: zero times infinity
            if bool((reached[1::2].ne(0) & reached[1::2].isfinite()).any()):
                raise PrivacyError(
                    "The loss of one unit depends on the data of another: a cell would change the "
                    "gradients of its whole minibatch, and clipping would bound nothing. Each "
                    "cell's loss must be computed from that cell alone."
                )
        named = {
            (f"{name}.{key}" if name else key): parameter
            for name, layer in self._layers.items()
            for key, parameter in layer.named_parameters(recurse=False)
            if parameter.requires_grad
        }
        plain = torch.autograd.grad(
            loss.sum(), list(named.values()), retain_graph=True, allow_unused=True
        )
        sums, _ = self.clipped_sums(loss, float("inf"))
        for (name, parameter), expected in zip(named.items(), plain, strict=True):
            expected = torch.zeros_like(parameter) if expected is None else expected
            scale = float(expected.abs().max()) + 1e-6
            if float((sums[name] - expected).abs().max()) > 1e-3 * scale:
                raise PrivacyError(
                    f"The parameter {name!r} is used outside the forward of its layer: its "
                    "gradient per unit is not complete, and would be trained without protection."
                )


def _leave_out(norms: dict[str, torch.Tensor], deltas: Mapping[str, Any]) -> None:
    """Give zero to units whose gradient is not finite: scaling it down would leave it infinite.

    Without this, one cell with counts that overflow would turn the whole sum into no number, and
    everybody would see that it took part.
    """
    finite = torch.stack([norm.isfinite() for norm in norms.values()]).all(0)
    if bool(finite.all()):
        return
    for norm in norms.values():
        norm[~finite] = 0.0
    for inputs, delta in deltas.values():
        inputs[~finite] = 0.0
        delta[~finite] = 0.0


def _factors(norm: torch.Tensor, bound: float) -> torch.Tensor:
    """By how much to scale each unit; nothing is left of those too long to be scaled down.

    A factor below the smallest normal number of 32 bits has few digits, and rounded up it would
    leave the unit longer than the bound.
    """
    factors = (bound / norm.clamp_min(1e-300)).clamp_max(1.0)
    return torch.where(factors < torch.finfo(torch.float32).tiny, 0.0, factors)


def _find_group(name: str, groups: Mapping[str, tuple[str, ...]]) -> str:
    for group, prefixes in groups.items():
        if any(
            not prefix or name == prefix or name.startswith(prefix + ".") for prefix in prefixes
        ):
            return group
    raise PrivacyError(f"The layer {name!r} belongs to no group: it would not be clipped.")


def _as_views(tensor: torch.Tensor, n_units: int, name: str) -> torch.Tensor:
    if tensor.ndim < 2 or tensor.shape[0] != n_units:
        raise PrivacyError(
            f"The layer {name!r} sees a first axis of {tensor.shape[0]} for {n_units} units: a "
            "unit with several rows would be clipped several times. Put its rows on axis 1."
        )
    # sizes spelt out: -1 is ambiguous in an empty minibatch
    return tensor.reshape(n_units, prod(tensor.shape[1:-1]), tensor.shape[-1])


def _layer_norm_inputs(layer: nn.LayerNorm, inputs: torch.Tensor) -> torch.Tensor:
    if len(layer.normalized_shape) != 1:
        raise PrivacyError("LayerNorm over several axes has no known gradient per unit.")
    return F.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)


def _rows(layer: nn.Module, inputs: torch.Tensor, delta: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients per unit of the parameters that are small, ``(units, ...)``."""
    if isinstance(layer, nn.LayerNorm):
        rows = {"weight": (delta * _layer_norm_inputs(layer, inputs)).sum(1)}
        return rows | {"bias": delta.sum(1)}
    if isinstance(layer, Offset):
        return {"offset": delta.sum(1)}
    if isinstance(layer, Centres):
        # d |z - m|^2 / dm = 2 (m - z)
        pulled = torch.einsum("uvk,uvd->ukd", delta, inputs)
        return {"centres": 2.0 * (delta.sum(1)[..., None] * layer.centres.detach() - pulled)}
    return {"bias": delta.sum(1)}


def _square_norm(layer: nn.Module, inputs: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Squared norm of each unit's gradient, in float64: rounding must not hide a large one."""
    total = torch.zeros(delta.shape[0], dtype=torch.float64, device=delta.device)
    trainable = {k for k, p in layer.named_parameters(recurse=False) if p.requires_grad}
    inputs, delta = inputs.double(), delta.double()
    if isinstance(layer, nn.Linear) and "weight" in trainable:
        total += _linear_square_norm(inputs, delta)
    for key, rows in _rows(layer, inputs, delta).items():
        if key in trainable:
            total += rows.flatten(1).square().sum(1)
    return total


def _linear_square_norm(inputs: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    n_views = inputs.shape[1]
    if n_views == 1:
        return inputs.square().sum((1, 2)) * delta.square().sum((1, 2))
    if n_views * (inputs.shape[2] + delta.shape[2]) > inputs.shape[2] * delta.shape[2]:
        # few weights and many views: the gradient itself is smaller than the products of views
        return torch.einsum("uvi,uvo->uio", inputs, delta).square().sum((1, 2))
    return (
        ((inputs @ inputs.transpose(1, 2)) * (delta @ delta.transpose(1, 2)))
        .sum((1, 2))
        .clamp_min(0)
    )


def _weighted_sum(
    layer: nn.Module,
    inputs: torch.Tensor,
    delta: torch.Tensor,
    weight: torch.Tensor,
    names: list[str],
) -> dict[str, torch.Tensor]:
    scaled = delta * weight[:, None, None]
    found = {}
    if isinstance(layer, nn.Linear) and "weight" in names:
        found["weight"] = scaled.flatten(0, 1).T @ inputs.flatten(0, 1)
    if isinstance(layer, Centres):
        return {k: v.sum(0) for k, v in _rows(layer, inputs, scaled).items() if k in names}
    if isinstance(layer, nn.LayerNorm) and "weight" in names:
        found["weight"] = (scaled * _layer_norm_inputs(layer, inputs)).sum((0, 1))
    key = "offset" if isinstance(layer, Offset) else "bias"
    if key in names:
        found[key] = scaled.sum((0, 1))
    return found
