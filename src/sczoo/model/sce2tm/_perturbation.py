"""Moving topics, and what that does to the genes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from sczoo.errors import InputError, MissingKeyError
from sczoo.model.sce2tm._differential import group_codes
from sczoo.model.sce2tm._reference import ReferenceGroups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

__all__ = ["PerturbationMixin", "PerturbationResult"]

Mode = Literal["ablate", "shift", "set", "to_group"]
Response = Literal["decoder", "reference"]


@dataclass(frozen=True)
class PerturbationResult:
    """Cells before and after a perturbation of their topics."""

    topics: list[int]
    """Topics that were moved."""
    mode: str
    """How they were moved."""
    latent: np.ndarray
    """Topic logits after it, cells x topics. An ablated topic has the logit of an absent one."""
    proportions: np.ndarray
    """Topic proportions after it, cells x topics."""
    reconstruction: np.ndarray
    """Frequencies of the genes before it, cells x genes."""
    perturbed_reconstruction: np.ndarray
    """Frequencies of the genes after it, cells x genes."""
    change: pd.DataFrame
    """Change of log-normalised expression, cells x genes."""
    gene_response: pd.Series
    """Mean over the cells of ``change``."""

    @property
    def log_fold_change(self) -> pd.DataFrame:
        """Change of the logarithm of the frequencies, cells x genes."""
        ratio = np.log(self.perturbed_reconstruction) - np.log(self.reconstruction)
        return pd.DataFrame(ratio, index=self.change.index, columns=self.change.columns)


class PerturbationMixin:
    """Perturbation of topics."""

    def perturb(
        self,
        topics: Sequence[int] | int | None = None,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        *,
        mode: Mode = "shift",
        value: float | Sequence[float] | None = None,
        groupby: str | None = None,
        source: str | None = None,
        target: str | None = None,
        within: str | None = None,
        reference: AnnData | MuData | None = None,
        max_topics: int = 11,
        response: Response = "decoder",
        batch_size: int | None = None,
    ) -> PerturbationResult:
        """Move topics of cells and decode what becomes of their genes.

        Decoding uses fixed statistics: the other cells of the batch play no part.

        Parameters
        ----------
        topics
            Topics to move. ``None`` is for ``mode="to_group"`` alone: those that differ most
            between ``source`` and ``target`` in the reference.
        adata
            Cells to perturb, of the training data or new; the model's own by default.
        indices
            Cells to use, in this order.
        mode
            ``"ablate"``: remove the topic and share the rest out. ``"shift"``: add ``value`` to
            the logit. ``"set"``: replace the logit by ``value``. ``"to_group"``: add the mean
            difference of two groups of reference cells.
        value
            One number, or one for each topic, in logits. For ``"to_group"``: how many times the
            difference is added, 1 by default.
        groupby, source, target
            For ``"to_group"``: column of ``obs`` and its two values. ``source=None`` stands for
            all reference cells that are not in ``target``.
        within
            For ``"to_group"``: column of ``obs``, such as the cell type, within whose values the
            difference is taken. Cells of values that the reference lacks in either group get the
            mean difference of the others.
        reference
            For ``"to_group"``: cells of both groups. The model's own by default, so that a
            response learnt from some patients is applied to another.
        max_topics
            Most topics chosen with ``topics=None``.
        response
            Where ``change`` comes from. ``"decoder"``: the difference of the two reconstructions.
            ``"reference"``, for ``"to_group"``: a regression of the reference cells' genes on the
            moved topics within each value of ``within``, drawn toward that over all of them. The
            decoder has one gene program per topic for all cells; the regression knows that a
            topic does not mean the same to every cell type.
        batch_size
            Cells at a time.

        Returns
        -------
        :class:`~sczoo.model.sce2tm.PerturbationResult`.

        Raises
        ------
        InputError
            A topic does not exist, or an argument is missing.
        MissingKeyError
            A column or group does not exist.
        """
        model: Any = self
        model._require_trained()
        if mode not in get_args(Mode):
            raise InputError(f"mode={mode!r} is not known; choose one of {get_args(Mode)}.")
        if response not in get_args(Response):
            raise InputError(
                f"response={response!r} is not known; choose one of {get_args(Response)}."
            )
        if response == "reference" and mode != "to_group":
            raise InputError("response='reference' needs mode='to_group' and its reference cells.")
        data = model.adata if adata is None else adata
        if data is None:
            raise InputError("This model was loaded without data: pass the cells as adata=.")
        latent, totals = [], []
        for out in model._outputs(adata, indices, batch_size):
            latent.append(out["mean"].cpu().numpy())
            totals.append(out["x"].sum(dim=1).cpu().numpy())
        before = np.concatenate([np.zeros((0, model.module.n_topics), np.float32), *latent])
        if mode == "to_group":
            if groupby is None or target is None:
                raise InputError("mode='to_group' needs groupby= and target=.")
            levels = None if within is None else group_codes(data, within)
            if levels is not None and indices is not None:
                levels = levels[np.asarray(indices)]
            groups = self._reference_groups(reference, groupby, source, target, within, batch_size)
            shift = groups.shift()
            chosen = _strongest(shift, max_topics) if topics is None else self._check(topics)
            amount = _times(value) * _shift_of_cells(shift, levels, len(before))
        else:
            chosen = self._check(topics)
            amount = _given_amount(mode, value, chosen, before)
        after = before.copy()
        if mode == "set":
            after[:, chosen] = amount[:, chosen]
        elif mode == "ablate":
            after[:, chosen] = -np.inf
        else:
            after[:, chosen] += amount[:, chosen]
        totals_of_cells = np.concatenate([np.zeros(0, np.float32), *totals])
        names = _cell_names(data, indices, len(before))
        result = self._decode(before, after, totals_of_cells, chosen, mode, names)
        if response == "decoder":
            return result
        expression = self._log_expression(reference, batch_size)
        moved = amount[:, chosen].astype(np.float64)
        values = np.zeros(result.change.shape)
        for level, cells in _cells_of_levels(levels, len(before), groups.levels()):
            values[cells] = moved[cells] @ groups.genes_of_topics(expression, chosen, level)
        change = pd.DataFrame(values, result.change.index, result.change.columns)
        return replace(result, change=change, gene_response=change.mean(axis=0).rename("change"))

    def _check(self, topics: Sequence[int] | int | None) -> list[int]:
        model: Any = self
        if topics is None:
            raise InputError("Name the topics to move: topics=[...].")
        chosen = [int(topic) for topic in np.atleast_1d(np.asarray(topics))]
        n_topics = model.module.n_topics
        for topic in chosen:
            if not 0 <= topic < n_topics:
                raise InputError(f"There is no topic {topic}: they are 0 to {n_topics - 1}.")
        if not chosen or len(set(chosen)) != len(chosen):
            raise InputError("topics must name at least one topic, each once.")
        return chosen

    def _log_expression(
        self, reference: AnnData | MuData | None, batch_size: int | None
    ) -> np.ndarray:
        """Log-normalised expression, cells x genes."""
        model: Any = self
        return np.concatenate(
            [out["x"].cpu().numpy() for out in model._outputs(reference, None, batch_size)]
        )

    def _reference_groups(
        self,
        reference: AnnData | MuData | None,
        groupby: str,
        source: str | None,
        target: str,
        within: str | None,
        batch_size: int | None,
    ) -> ReferenceGroups:
        model: Any = self
        data = model.adata if reference is None else reference
        if data is None:
            raise InputError("This model was loaded without data: pass reference= cells.")
        groups = group_codes(data, groupby)
        for name in (source, target):
            if name is not None and not (groups == name).any():
                known = sorted({value for value in groups if value is not None})
                raise MissingKeyError(f"obs[{groupby!r}] has no value {name!r}; it has {known}.")
        to = groups == target
        start = groups == source if source is not None else ~to
        levels = group_codes(data, within) if within is not None else np.full(len(groups), None)
        latent = model.get_latent_representation(reference, batch_size=batch_size)
        found = ReferenceGroups(latent, start, to, levels)
        if not found.levels():
            raise MissingKeyError(
                f"No value of obs[{within!r}] has reference cells in both groups of "
                f"obs[{groupby!r}]."
            )
        return found

    @torch.inference_mode()
    def _decode(
        self,
        before: np.ndarray,
        after: np.ndarray,
        totals: np.ndarray,
        topics: list[int],
        mode: str,
        names: pd.Index,
    ) -> PerturbationResult:
        model: Any = self
        module = model.module
        columns = pd.Index(model.var_names.astype(str), name="gene")
        decoded, proportions = [], []
        for logits in (before, after):
            theta = F.softmax(torch.from_numpy(logits).to(module.device), dim=1)
            decoded.append(F.softmax(module.generative(theta)["logits"], dim=1).cpu().numpy())
            proportions.append(theta.cpu().numpy())
        change = pd.DataFrame((decoded[1] - decoded[0]) * totals[:, None], names, columns)
        return PerturbationResult(
            topics=topics,
            mode=mode,
            latent=after,
            proportions=proportions[1],
            reconstruction=decoded[0],
            perturbed_reconstruction=decoded[1],
            change=change,
            gene_response=change.mean(axis=0).rename("change"),
        )


def _times(value: float | Sequence[float] | None) -> float:
    if value is None:
        return 1.0
    if np.ndim(value) != 0 or not np.isfinite(value):
        raise InputError(f"value={value!r}: mode='to_group' takes one finite number.")
    return float(np.asarray(value))


def _cells_of_levels(
    levels: np.ndarray | None, n_cells: int, known: list[str | None]
) -> list[tuple[str | None, np.ndarray]]:
    """Cells of each known level; the others under ``None``."""
    if levels is None:
        return [(None, np.ones(n_cells, dtype=bool))]
    found: list[tuple[str | None, np.ndarray]] = [(level, levels == level) for level in known]
    rest = ~np.isin(np.arange(n_cells), np.flatnonzero(np.any([c for _, c in found], axis=0)))
    return [*found, (None, rest)]


def _given_amount(
    mode: str, value: float | Sequence[float] | None, topics: list[int], before: np.ndarray
) -> np.ndarray:
    amount = np.zeros_like(before)
    if mode == "ablate":
        if len(topics) == before.shape[1]:
            raise InputError("All topics cannot be ablated: nothing would be left of the cells.")
        return amount
    if value is None:
        raise InputError(f"mode={mode!r} needs value=, a number of logits.")
    values = np.asarray(value, dtype=np.float32)
    if values.ndim > 1 or (values.ndim == 1 and len(values) != len(topics)):
        raise InputError(f"value must be one number, or one for each of the {len(topics)} topics.")
    if not np.isfinite(values).all():
        raise InputError("value must be finite; use mode='ablate' to remove a topic.")
    amount[:, topics] = values
    return amount


def _strongest(shift: dict[str | None, np.ndarray], max_topics: int) -> list[int]:
    """Topics with the largest absolute shift in any cell type."""
    size = np.abs(np.stack(list(shift.values()))).max(axis=0)
    return [int(topic) for topic in np.argsort(-size, kind="stable")[:max_topics]]


def _shift_of_cells(
    shift: dict[str | None, np.ndarray], levels: np.ndarray | None, n_cells: int
) -> np.ndarray:
    mean = np.stack(list(shift.values())).mean(axis=0)
    amount = np.tile(mean, (n_cells, 1))
    if levels is not None:
        for level, difference in shift.items():
            amount[levels == level] = difference
    return amount


def _cell_names(data: Any, indices: Sequence[int] | None, n_cells: int) -> pd.Index:
    names = pd.Index(data.obs_names.astype(str), name="cell")
    return names if indices is None else names[np.asarray(indices)][:n_cells]
