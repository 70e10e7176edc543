"""Opening artefacts by name or by folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sczoo.base._artefact import Artefact, read_artefact
from sczoo.errors import InputError
from sczoo.hub._cells import read_data
from sczoo.hub._fetch import fetch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from sczoo.hub._registry import Location

__all__ = ["is_path", "load", "open_artefact"]

logger = logging.getLogger("sczoo")


def load(
    name_or_dir: str | os.PathLike[str],
    adata: AnnData | None = None,
    *,
    registry: Location | Sequence[Location] | None = None,
    accelerator: str = "auto",
    device: int | str = "auto",
) -> Any:
    """Open a published model or dataset by name, or a saved one by its folder.

    Every file is checked by size and SHA-256 before it is read, and nothing in an artefact can
    run code. Where the installed libraries differ from those that made a model, its self-test
    runs first.

    Parameters
    ----------
    name_or_dir
        ``id``, ``id:version``, or a folder (``./folder``).
    adata
        Data to attach to a model; they must have its genes in its order.
    registry
        Further registries, which win over the embedded one and those of ``SCZOO_REGISTRY``.
    accelerator, device
        Where a model lives.

    Returns
    -------
    The model; for an artefact of kind ``dataset``, its cells as an AnnData.

    Raises
    ------
    InputError
        If the first argument is neither a name nor a path.
    UnknownArtefactError, RevokedError, FetchError, IntegrityError
        If the artefact cannot be had as the registry describes it.
    UnknownMethodError
        If the method is not installed.
    SelfTestError
        If a model does not reproduce its stored outputs.

    Examples
    --------
    >>> model = sczoo.load("sce2tm/pbmc-interferon:1")
    """
    artefact = open_artefact(name_or_dir, registry)
    if artefact.record.kind == "dataset":
        if adata is not None:
            raise InputError(f"{name_or_dir} is a dataset; adata= can be given for models only.")
        return open_cells(artefact)
    model = open_model(artefact)
    if _libraries_differ(artefact):
        difference = run_selftest(model, artefact)
        logger.info(
            "The installed libraries differ from those that made the model; its self-test passed "
            "(largest difference %s).",
            difference,
        )
    from sczoo import _compat

    model.to_device(_compat.resolve_device(accelerator, device))
    if adata is not None:
        model._attach(adata)
    return model


def open_cells(artefact: Artefact) -> AnnData:
    """Read the cells of a dataset, with what the artefact says of them and counts as floats."""
    adata = read_data(artefact)
    if adata.X is not None and adata.X.dtype.kind in "ui":
        adata.X = adata.X.astype("float32")  # as stored they are too narrow to be summed
    record = artefact.record
    if record.attributes:
        adata.uns[record.method] = {**record.attributes, "provenance": dict(record.provenance)}
    return adata


def open_artefact(
    name_or_dir: str | os.PathLike[str],
    registry: Location | Sequence[Location] | None = None,
) -> Artefact:
    """Open an artefact, fetched and checked, without building what it describes."""
    require_place(name_or_dir)
    if is_path(name_or_dir):
        return read_artefact(Path(name_or_dir).expanduser())
    return fetch(os.fspath(name_or_dir), registry)


def require_place(name_or_dir: object) -> None:
    """Require a name or a path.

    Raises
    ------
    InputError
        It is neither.
    """
    if not isinstance(name_or_dir, (str, os.PathLike)):
        raise InputError(
            f"Expected the name of an artefact or the folder of a saved one, got "
            f"{type(name_or_dir).__name__}. Names look like 'sce2tm/pbmc-interferon'; "
            "sczoo.hub.list_artefacts() shows them."
        )


def is_path(name_or_dir: str | os.PathLike[str]) -> bool:
    """Whether an argument means a folder rather than a name.

    Paths are :class:`~pathlib.Path` objects, texts that begin with ``.``, ``/`` or ``~`` or end
    with ``/``, and texts that name an existing artefact folder, or a folder where the text has
    no ``/`` and so cannot be a name.
    """
    if not isinstance(name_or_dir, str):
        return True
    if name_or_dir.startswith((".", "/", "~")) or name_or_dir.endswith("/"):
        return True
    folder = Path(name_or_dir)
    return (folder / "manifest.json").is_file() or ("/" not in name_or_dir and folder.is_dir())


def open_model(artefact: Artefact) -> Any:
    """Build the model of an artefact, on the CPU; the method comes from the allow-list."""
    from sczoo.base._persistence import from_artefact
    from sczoo.model import get_model_class

    return from_artefact(get_model_class(artefact.record.method), artefact)


def run_selftest(model: Any, artefact: Artefact) -> float | None:
    """Recompute the stored outputs; returns the largest difference."""
    from sczoo.base import _persistence

    return _persistence.run_selftest(model, artefact)


def _libraries_differ(artefact: Artefact) -> bool:
    from sczoo.base._provenance import versions

    recorded = artefact.record.provenance.get("versions")
    return recorded != versions()
