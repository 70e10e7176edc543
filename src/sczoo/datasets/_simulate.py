"""A cohort of patients from a negative binomial model whose every effect is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from sczoo.datasets._cohort_parameters import CohortParameters
from sczoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

__all__ = ["simulated_cohort"]

# Four million means (32 MB) are in memory at once, whatever the numbers of cells and genes.
_BLOCK_VALUES = 4_000_000
# Above this, float32 no longer holds every whole number.
_LARGEST_COUNT = 2**24


class _Effects(NamedTuple):
    """Additive effects on the log scale, one row per level: (levels, genes)."""

    gene: np.ndarray  # (genes,)
    cell_type: np.ndarray
    donor: np.ndarray
    batch: np.ndarray
    condition: np.ndarray


class _Cells(NamedTuple):
    """Level of each cell, and its expected number of molecules before dropout."""

    cell_type: np.ndarray
    donor: np.ndarray
    batch: np.ndarray
    condition: np.ndarray
    depth: np.ndarray


def simulated_cohort(
    n_donors: int = 6,
    n_cells: int = 2000,
    n_genes: int = 500,
    n_cell_types: int = 5,
    n_batches: int = 2,
    *,
    conditions: Sequence[str] = ("control", "treated"),
    depth: float | Sequence[float] = 1500.0,
    depth_sd: float = 0.3,
    dispersion: float = 2.0,
    dropout: float = 0.0,
    gene_sd: float = 1.0,
    donor_sd: float = 0.1,
    batch_sd: float = 0.1,
    marker_fold: float = 8.0,
    condition_fold: float = 4.0,
    n_markers: int | None = None,
    n_response_genes: int | None = None,
    composition: float = 20.0,
    batch_design: Literal["nested", "crossed"] = "nested",
    seed: int = 0,
) -> AnnData:
    r"""Simulate the counts of a cohort: donors, batches, conditions, cell types, depth, dropout.

    Cell :math:`i` of donor :math:`d`, batch :math:`b`, condition :math:`t` and cell type
    :math:`c` has, for gene :math:`g`,

    .. math::

        \eta_{ig} &= \alpha_g + \delta_{cg} + u_{dg} + v_{bg} + w_{tg} \\
        p_{ig} &= \exp(\eta_{ig}) / \textstyle\sum_h \exp(\eta_{ih}) \\
        \mu_{ig} &= \ell_i \, p_{ig}, \qquad
        \log \ell_i \sim N(\log L_b - s^2 / 2, \, s^2) \\
        y_{ig} &\sim \mathrm{NB}(\mu_{ig}, \theta):
        \quad \mathrm{E} = \mu, \quad \mathrm{Var} = \mu + \mu^2 / \theta \\
        x_{ig} &= z_{ig} \, y_{ig}, \qquad z_{ig} \sim \mathrm{Bernoulli}(1 - \pi)

    where :math:`\alpha`, :math:`u` and :math:`v` are normal with mean 0 and the standard
    deviations ``gene_sd``, ``donor_sd`` and ``batch_sd``; :math:`\delta_{cg}` is the logarithm of
    ``marker_fold`` for the markers of type :math:`c`, and :math:`w_{tg}` that of
    ``condition_fold`` for the response genes of condition :math:`t`; both are 0 elsewhere. The
    negative binomial is drawn as a Poisson whose mean is :math:`\mu` times a gamma variable of
    mean 1 and variance :math:`1/\theta`.

    So a cell has :math:`L_b` molecules on average before dropout and :math:`(1 - \pi) L_b` after
    it, and :math:`\mathrm{Var}(x) = (1-\pi)(\mu + \mu^2/\theta) + \pi (1-\pi) \mu^2`.

    Cells are shared evenly among the combinations of donor, condition and (crossed) batch. A
    donor's cell types are drawn from its own proportions, :math:`\rho_d \sim
    \mathrm{Dirichlet}(\kappa / C, \ldots)`.

    Parameters
    ----------
    n_donors, n_cells, n_genes, n_cell_types, n_batches
        Sizes; ``n_cells`` is the number in the whole cohort.
    conditions
        Names; the first is the reference. Every donor has cells in every condition.
    depth
        Mean molecules per cell :math:`L`, one number or one per batch.
    depth_sd
        Standard deviation :math:`s` of the log depth; 0 gives every cell the same expectation.
    dispersion
        Inverse dispersion :math:`\theta`, at least 0.001; infinity gives Poisson counts.
    dropout
        Probability :math:`\pi` that a value is lost, whatever its size.
    gene_sd, donor_sd, batch_sd
        Standard deviations of the effects on the natural log scale.
    marker_fold, condition_fold
        Fold changes of markers and of response genes.
    n_markers, n_response_genes
        Marker genes per cell type, and response genes per condition other than the reference; no
        gene is in two groups. By default up to 20 each, and no more than half of all genes.
    composition
        Concentration :math:`\kappa`: small values make donors differ in composition, infinity
        gives every donor equal proportions.
    batch_design
        ``"nested"``: donor ``d`` is in batch ``d % n_batches``. ``"crossed"``: each donor has
        cells in every batch.
    seed
        Seed of the simulation's own generators; global random state is neither read nor changed.

    Returns
    -------
    ``X`` counts (CSR float32); ``obs`` with ``donor``, ``batch``, ``cell_type`` and
    ``condition``; ``var`` with ``marker_of`` and ``responds_to`` (names, or "" for none) and
    ``baseline`` (the fraction :math:`\mathrm{softmax}(\alpha)`); ``varm`` with the true effects
    on the log scale, one column per level; ``uns["simulation"]`` with every parameter.

    Raises
    ------
    sczoo.errors.InputError
        A parameter is out of range, or they do not fit together.

    Notes
    -----
    Cells are drawn in blocks of about four million values, so the memory needed is that of the
    result plus some 200 MB. The same seed gives the same data; with the same seed a cohort with
    dropout is the one without, some of its values lost.

    Examples
    --------
    >>> import sczoo
    >>> adata = sczoo.datasets.simulated_cohort(n_cells=300, n_genes=100)
    >>> adata.shape
    (300, 100)
    """
    parameters = CohortParameters.checked(
        n_donors=n_donors,
        n_cells=n_cells,
        n_genes=n_genes,
        n_cell_types=n_cell_types,
        n_batches=n_batches,
        conditions=conditions,
        depth=depth,
        depth_sd=depth_sd,
        dispersion=dispersion,
        dropout=dropout,
        gene_sd=gene_sd,
        donor_sd=donor_sd,
        batch_sd=batch_sd,
        marker_fold=marker_fold,
        condition_fold=condition_fold,
        n_markers=n_markers,
        n_response_genes=n_response_genes,
        composition=composition,
        batch_design=batch_design,
        seed=seed,
    )
    # A stream of its own for each part: more cells do not change the genes' effects, and dropout
    # does not change the counts that it hides.
    streams = np.random.SeedSequence(parameters.seed).spawn(5)
    structure, design, mixing, counting, losing = (
        np.random.default_rng(stream) for stream in streams
    )
    effects, groups = _draw_effects(parameters, structure)
    cells = _draw_cells(parameters, design, structure)
    counts = _draw_counts(parameters, effects, cells, (mixing, counting, losing))
    return _assemble(parameters, effects, groups, cells, counts)


def _draw_effects(
    p: CohortParameters, rng: np.random.Generator
) -> tuple[_Effects, dict[str, np.ndarray]]:
    gene = rng.normal(0, p.gene_sd, p.n_genes)
    donor = rng.normal(0, p.donor_sd, (p.n_donors, p.n_genes))
    batch = rng.normal(0, p.batch_sd, (p.n_batches, p.n_genes))
    order = rng.permutation(p.n_genes)
    cell_type = np.zeros((p.n_cell_types, p.n_genes))
    condition = np.zeros((len(p.conditions), p.n_genes))
    marker_of = np.full(p.n_genes, -1)
    responds_to = np.full(p.n_genes, -1)
    markers, rest = np.split(order, [p.n_cell_types * p.n_markers])
    for level, genes in enumerate(markers.reshape(p.n_cell_types, p.n_markers)):
        cell_type[level, genes] = np.log(p.marker_fold)
        marker_of[genes] = level
    for level in range(1, len(p.conditions)):
        genes = rest[(level - 1) * p.n_response_genes : level * p.n_response_genes]
        condition[level, genes] = np.log(p.condition_fold)
        responds_to[genes] = level
    effects = _Effects(gene, cell_type, donor, batch, condition)
    return effects, {"marker_of": marker_of, "responds_to": responds_to}


def _draw_cells(
    p: CohortParameters, design: np.random.Generator, structure: np.random.Generator
) -> _Cells:
    donor, rest = _split_off(design.permutation(p.n_cells), p.n_donors)
    condition, rest = _split_off(rest, len(p.conditions))
    batch = donor % p.n_batches if p.batch_design == "nested" else rest % p.n_batches
    share = np.full(p.n_cell_types, 1 / p.n_cell_types)
    cell_type = np.empty(p.n_cells, dtype=np.int64)
    position = design.random(p.n_cells)
    for level in range(p.n_donors):
        own = share if np.isinf(p.composition) else structure.dirichlet(p.composition * share)
        here = donor == level
        found = np.searchsorted(np.cumsum(own), position[here], side="right")
        cell_type[here] = np.minimum(found, p.n_cell_types - 1)  # the sum may round below 1
    mean_depth = np.resize(np.asarray(p.depth), p.n_batches)[batch]
    spread = p.depth_sd * design.standard_normal(p.n_cells)
    return _Cells(
        cell_type, donor, batch, condition, mean_depth * np.exp(spread - p.depth_sd**2 / 2)
    )


def _split_off(index: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Lowest digit of a mixed-radix number, and what is left of it."""
    rest, digit = np.divmod(index, levels)
    return digit, rest


def _draw_counts(
    p: CohortParameters,
    effects: _Effects,
    cells: _Cells,
    generators: tuple[np.random.Generator, np.random.Generator, np.random.Generator],
    block_values: int = _BLOCK_VALUES,
) -> csr_matrix:
    from scipy.sparse import csr_matrix

    # one generator per step, so that the result does not depend on the size of the blocks
    mixing, counting, losing = generators
    rows = max(1, block_values // p.n_genes)
    per_cell = np.zeros(p.n_cells + 1, dtype=np.int64)
    data = np.empty(0, dtype=np.float32)
    indices = np.empty(0, dtype=np.int32)
    for start in range(0, p.n_cells, rows):
        stop = min(start + rows, p.n_cells)
        mean = _mean(effects, cells, slice(start, stop))
        if np.isfinite(p.dispersion):
            mean *= mixing.standard_gamma(p.dispersion, mean.shape)
            mean /= p.dispersion
        _refuse_too_large(mean.max())
        block = counting.poisson(mean)
        _refuse_too_large(block.max())
        if p.dropout:
            block[losing.random(block.shape) < p.dropout] = 0
        cell, gene = np.nonzero(block)
        per_cell[start + 1 : stop + 1] = np.bincount(cell, minlength=stop - start)
        # Growing in place keeps one copy, where joining a list of blocks would need two.
        filled = len(data)
        data.resize(filled + len(cell), refcheck=False)
        indices.resize(filled + len(cell), refcheck=False)
        data[filled:] = block[cell, gene]
        indices[filled:] = gene
    return csr_matrix((data, indices, np.cumsum(per_cell)), shape=(p.n_cells, p.n_genes))


def _refuse_too_large(count: float) -> None:
    if count >= _LARGEST_COUNT:
        raise InputError(
            f"simulated_cohort: a count of {count:,.0f} does not fit float32 exactly: lower depth "
            "or depth_sd, or raise dispersion or n_genes"
        )


def _mean(effects: _Effects, cells: _Cells, part: slice) -> np.ndarray:
    """Compute the expected counts of some cells, before dropout: (cells, genes)."""
    mean = effects.gene + effects.cell_type[cells.cell_type[part]]
    mean += effects.donor[cells.donor[part]]
    mean += effects.batch[cells.batch[part]]
    mean += effects.condition[cells.condition[part]]
    np.exp(mean, out=mean)
    mean *= (cells.depth[part] / mean.sum(axis=1))[:, None]
    return mean


def _assemble(
    p: CohortParameters,
    effects: _Effects,
    groups: dict[str, np.ndarray],
    cells: _Cells,
    counts: csr_matrix,
) -> AnnData:
    import pandas as pd
    from anndata import AnnData

    names = {
        "donor": _names("donor", p.n_donors),
        "batch": _names("batch", p.n_batches),
        "cell_type": _names("type", p.n_cell_types),
        "condition": list(p.conditions),
    }
    obs = pd.DataFrame(
        {
            column: pd.Categorical.from_codes(getattr(cells, column), pd.Index(levels))
            for column, levels in names.items()
        },
        index=pd.Index(_names("cell", p.n_cells)),
    )
    obs["cell_type"] = obs["cell_type"].cat.remove_unused_categories()
    fraction = np.exp(effects.gene)
    var = pd.DataFrame(
        {
            "marker_of": _labels(groups["marker_of"], names["cell_type"]),
            "responds_to": _labels(groups["responds_to"], names["condition"]),
            "baseline": fraction / fraction.sum(),
        },
        index=pd.Index(_names("gene", p.n_genes)),
    )
    varm = {
        f"{column}_effect": pd.DataFrame(
            getattr(effects, column).T, index=var.index, columns=levels
        )
        for column, levels in names.items()
    }
    record: dict[str, Any] = p.model_dump()
    record["conditions"] = np.asarray(p.conditions, dtype=object)
    record["depth"] = np.asarray(p.depth)
    return AnnData(X=counts, obs=obs, var=var, varm=varm, uns={"simulation": record})


def _names(prefix: str, count: int) -> list[str]:
    width = len(str(count))
    return [f"{prefix}_{i:0{width}d}" for i in range(1, count + 1)]


def _labels(codes: np.ndarray, names: list[str]) -> pd.Categorical:
    import pandas as pd

    return pd.Categorical([names[code] if code >= 0 else "" for code in codes])
