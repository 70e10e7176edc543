"""Checks of inference on new cells: order, values, and no trace left behind."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np

from sczoo import _compat
from sczoo.errors import InputError, NotFiniteError
from sczoo.testing._expect import refuses, require, require_close, require_finite
from sczoo.testing._snapshot import Snapshot

if TYPE_CHECKING:
    from anndata import AnnData

    from sczoo.testing._case import ModelCase

N_PATIENTS = 50
_BALLAST = 1 << 19  # doubles that travel with each patient: 4 MB
_MAX_GROWTH = 64 << 20


def _orders(n_obs: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)
    return {
        "a subset in ascending order": np.arange(3, n_obs, 4),
        "a permutation": rng.permutation(n_obs),
        "repeated rows": rng.integers(n_obs, size=2 * n_obs),
        "rows counted from the end": -1 - np.arange(5),
    }


def _require_order(case: ModelCase, query: AnnData) -> None:
    for what, indices in _orders(query.n_obs).items():
        latent = case.embed(case.model, query, indices=indices)
        require_close(latent, case.latent[indices], f"Results for {what} of indices")
    mask = np.arange(query.n_obs) % 3 == 1
    require_close(
        case.embed(case.model, query, indices=mask), case.latent[mask], "Results for a mask"
    )


def check_order_of_indices(case: ModelCase) -> None:
    """Give rows in the order of ``indices``, also repeated, negative or as a mask."""
    _require_order(case, case.query(bare=True))


def check_order_of_indices_on_a_file(case: ModelCase) -> None:
    """Give rows in the order of ``indices`` on backed data, without changing the file."""
    path = case.folder / "query.h5ad"
    case.query(bare=True).write_h5ad(path)
    content = path.read_bytes()
    backed = anndata.read_h5ad(path, backed="r")
    try:
        require_close(case.embed(case.model, backed), case.latent, "Results on a backed file")
        _require_order(case, backed)
    finally:
        backed.file.close()
    require(path.read_bytes() == content, "Inference changed the file that it read.")


def check_no_indices(case: ModelCase) -> None:
    """Give no rows, but the right columns, for empty ``indices``."""
    latent = case.embed(case.model, case.query(bare=True), indices=[])
    expected = (0, case.latent.shape[1])
    require(latent.shape == expected, f"Empty indices give shape {latent.shape}, not {expected}.")


def check_refuses_impossible_indices(case: ModelCase) -> None:
    """Refuse rows that do not exist, with a typed error."""
    query = case.query(bare=True)
    for indices in ([0, query.n_obs], [-query.n_obs - 1], [0.5], [True]):
        with refuses(InputError, "indices", doing=f"Asking for rows {indices}"):
            case.embed(case.model, query, indices=indices)


def check_batch_size_changes_nothing(case: ModelCase) -> None:
    """Give the same results for any ``batch_size``."""
    for batch_size in (1, 7, 1000):
        latent = case.embed(case.model, case.query(bare=True), batch_size=batch_size)
        require_close(latent, case.latent, f"Results with batch_size={batch_size}")


def check_a_view_as_query(case: ModelCase) -> None:
    """Read a view of a larger object, without turning it into a copy."""
    query = case.query(bare=True)
    view = query[5:25]
    require_close(case.embed(case.model, view), case.latent[5:25], "Results on a view")
    require(view.is_view, "Inference turned the view into a copy.")


def check_results_of_the_training_cells(case: ModelCase) -> None:
    """Give the same for its own cells and for the same cells passed as a query."""
    require_close(
        case.embed(case.model, case.cells()),
        case.embed(case.model),
        "Results without an argument and for the same cells as a query",
    )


def check_refuses_bad_values_in_a_query(case: ModelCase) -> None:
    """Refuse NaN in a query, naming its cell and gene; the query stays as it was."""
    query = case.query()
    matrix = case.dense(query).astype(np.float32)
    matrix[9, 4] = np.nan
    case.put_matrix(query, matrix)
    before = Snapshot(query)
    names = (str(query.obs_names[9]), str(query.var_names[4]))
    with refuses(NotFiniteError, *names, doing="A query with NaN"):
        case.embed(case.model, query)
    with refuses(NotFiniteError, *names, doing="Annotating a query with NaN"):
        case.model.annotate(query)
    before.require_unchanged("Refusing a query")


def check_query_is_unchanged(case: ModelCase) -> None:
    """Leave the query exactly as it was, also where its genes must be aligned."""
    query = case.query()
    shuffled = query[:, ::-1].copy()
    for cells in (query, shuffled):
        cells.uns["something"] = {"nested": np.arange(3)}
        before = Snapshot(cells)
        case.embed(case.model, cells)
        before.require_unchanged("Inference")
        case.model.align_genes(cells)
        case.model_class.prepare_query_anndata(cells, case.model)
        before.require_unchanged("Preparing a query")


def check_training_cells_are_unchanged(case: ModelCase) -> None:
    """Add scvi-tools' own marks to the training cells, and nothing else."""
    cells = case.cells()
    before = Snapshot(cells)
    case.fit(cells)
    for column in _compat.SETUP_TRACES_OBS:
        if column in cells.obs:
            del cells.obs[column]
    for entry in _compat.SETUP_TRACES_UNS:
        cells.uns.pop(entry, None)
    before.require_unchanged("Training")


def check_annotate(case: ModelCase) -> None:
    """Write what it says into a query, under the method's name, and nothing else."""
    query = case.query()
    before = Snapshot(query)
    written = case.model.annotate(query)
    method = case.model_class._method
    require(f"obsm['X_{method}']" in written, f"annotate reports {sorted(written)}.")
    require_finite(query.obsm[f"X_{method}"], query.n_obs, f"obsm['X_{method}']")
    require(method in query.uns.get("sczoo", {}), "annotate writes no record into uns['sczoo'].")
    for place in written:
        where, _, key = place.partition("[")
        require(key[1:-2] in getattr(query, where), f"annotate reports {place}, which is missing.")
        del getattr(query, where)[key[1:-2]]
    del query.uns["sczoo"]
    before.require_unchanged("annotate, beyond what it reports,")


def _resident_bytes() -> int | None:
    """Return the memory that this process holds, or ``None`` where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    import resource

    return pages * resource.getpagesize()


def check_patients_are_released(case: ModelCase) -> None:
    """Require that scoring 50 patients keeps none of them, and memory does not grow."""
    model, latents = case.model, []

    def score(patient: int) -> Any:
        cells = case.query()[:, ::-1].copy()
        cells.obs_names = [f"{patient}-{name}" for name in cells.obs_names]
        cells.obsm["ballast"] = np.full((cells.n_obs, _BALLAST // cells.n_obs), float(patient))
        latents.append(case.embed(model, cells))
        model.annotate(cells)
        return weakref.ref(cells)

    for patient in range(3):  # first calls fill caches that are there to stay
        score(patient)
    gc.collect()
    held, memory = _compat.managers_held(case.model_class), _resident_bytes()
    alive = [score(patient) for patient in range(N_PATIENTS)]
    gc.collect()
    kept = sum(reference() is not None for reference in alive)
    require(not kept, f"{kept} of {N_PATIENTS} patients are still in memory after scoring.")
    now = _compat.managers_held(case.model_class)
    require(
        now == held, f"scvi-tools holds {now - held} more objects after {N_PATIENTS} patients."
    )
    grown = (_resident_bytes() or 0) - (memory or 0)
    require(
        memory is None or grown < _MAX_GROWTH,
        f"Memory grew by {grown >> 20} MB while scoring {N_PATIENTS} patients of 4 MB.",
    )
    require_close(latents[-1], latents[0], "The same cells scored first and last")
