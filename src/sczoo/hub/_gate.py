"""The release gate: what an artefact says about single patients is found, not asserted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from sczoo.base._artefact import read_artefact
from sczoo.hub._gate_facts import Facts
from sczoo.hub._gate_report import Finding, GateReport
from sczoo.hub._gate_rules import RULES, is_donor_like, looks_like_barcode, parameters

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterator, Mapping

__all__ = ["inspect"]


def inspect(
    path: str | os.PathLike[str],
    model: Any = None,
    *,
    allow: Collection[str] = (),
    expected_parameters: Mapping[str, tuple[int, ...]]
    | Callable[[], Mapping[str, tuple[int, ...]]]
    | None = None,
) -> GateReport:
    """Look for content about single patients in an artefact.

    Parameters
    ----------
    path
        Folder of the artefact.
    model
        The model that it was saved from. With its data at hand, names of cells and categories
        are found by comparison, whatever they look like.
    allow
        Codes of findings that may be released, such as ``"categories:cell_type"``.
    expected_parameters
        Names and shapes of the arrays that the method builds, or a function that returns them;
        read from `model` where it is given.

    Returns
    -------
    A report; :meth:`GateReport.raise_for_findings` turns findings into an error.
    """
    artefact = read_artefact(path)
    facts = Facts.of(artefact, model)
    found = [finding for rule in RULES for finding in rule(facts)]
    checked = [str(rule.__doc__).partition("\n")[0].rstrip(".") for rule in RULES]

    expected = expected_parameters() if callable(expected_parameters) else expected_parameters
    if expected is None and model is not None:
        expected = {name: tuple(t.shape) for name, t in model.module.state_dict().items()}
    if expected is not None:
        found += parameters(facts.shapes, expected)
        checked.append("Arrays against those that the method builds")
    elif facts.shapes:
        checked.append("NOT checked: arrays against the method's own, for want of a model")
    if facts.live is None:
        checked.append("NOT checked: comparison with the training data, which are not at hand")
    if artefact.data_path is not None:
        found += _distilled_cells(facts)
        checked.append("Names, columns and number of the distilled cells")

    unique = {(finding.code, finding.where): finding for finding in found}.values()
    allowed = set(allow)
    return GateReport(
        findings=tuple(finding for finding in unique if finding.code not in allowed),
        allowed=tuple(finding for finding in unique if finding.code in allowed),
        checked=tuple(checked),
        compared_with_data=facts.live is not None,
    )


def _distilled_cells(facts: Facts) -> Iterator[Finding]:
    """Look into ``data.h5ad`` of a dataset."""
    from sczoo.hub._cells import read_data

    adata = read_data(facts.artefact)
    where = "data.h5ad"
    names = set(map(str, adata.obs_names))
    live = facts.live
    if any(looks_like_barcode(name) for name in names) or (live and names & live.obs_names):
        yield Finding(f"barcodes:{where}", f"{where}: obs_names", "barcodes of cells", "cell")
    if adata.n_obs in facts.cell_counts:
        yield Finding(
            f"percell:{where}", where, "as many distilled cells as training cells", "cell"
        )
    for column in map(str, adata.obs.columns):
        about: Literal["donor", "other"] = "donor" if is_donor_like(column) else "other"
        if about == "donor" or adata.obs[column].dtype.kind not in "fiub":
            yield Finding(
                f"categories:{column}", f"{where}: obs", f"category names of {column}", about
            )
    fields = (*adata.uns, *adata.obsm, *adata.layers, *adata.obsp)
    # newer anndata lists X among the layers, as None
    for name in filter(None, fields):
        yield Finding(f"extra:{name}", where, f"an additional field ({name})", "other")
