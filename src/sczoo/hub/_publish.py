"""Publishing: through the release gate into a registry, with a card that tells the truth."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sczoo.base._artefact import read_artefact
from sczoo.errors import RegistryError
from sczoo.hub._fields import complete_entry, gather
from sczoo.hub._gate import inspect
from sczoo.hub._registry import Location, parse_name
from sczoo.hub._schema import CardFields, to_document
from sczoo.hub._store import add_artefact, registry_folder

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sczoo.base._artefact import Artefact
    from sczoo.base._record import ArtefactRecord
    from sczoo.hub._schema import RegistryEntry

__all__ = ["publish"]

_CATEGORIES = "categories:"


def publish(
    model_or_dir: Any,
    name: str,
    version: int | None = None,
    *,
    registry: Location,
    card: Mapping[str, Any] | CardFields | None = None,
    allow: Collection[str] = (),
) -> RegistryEntry:
    """Publish a model, or a saved artefact, into a registry folder.

    The release gate looks for content about single patients first; what it finds stands in the way
    unless it is allowed by name. Then the card is rendered from the entry and the artefact is
    written, and listed last: an interrupted call leaves the registry as it was.

    Parameters
    ----------
    model_or_dir
        A trained model, a distilled set, or the folder of a saved artefact. With a model that
        still has its data, the gate compares with them.
    name
        ``METHOD/NAME``, in lower case.
    version
        The next free version unless given. Versions never change once published.
    registry
        Folder of the registry; created if it does not exist.
    card
        What only a person knows, as :class:`CardFields` or a dictionary of its fields: licence,
        training data, metrics, limits, out-of-scope uses; ``{"input": {"species": ...}}``. The
        rest is read from the artefact. What is missing is listed in the error.
    allow
        Findings of the gate that may be released, such as ``"categories:cell_type"``.

    Raises
    ------
    ReleaseGateError
        If the gate found something that was not allowed.
    SchemaError
        If the card is not complete.
    RegistryError
        If the version exists already, or the registry cannot be changed.

    Examples
    --------
    >>> sczoo.hub.publish(model, "sce2tm/kang-topics", registry="my-registry/", card=card)
    """
    identifier, in_name = parse_name(name)
    if in_name is not None and version not in (None, in_name):
        raise RegistryError(f"{name!r} and version={version} contradict each other.")
    version = version if version is not None else in_name
    folder = registry_folder(registry)
    with TemporaryDirectory(prefix="sczoo-") as scratch:
        if isinstance(model_or_dir, (str, os.PathLike)):
            source = read_artefact(Path(model_or_dir).expanduser())
            model = _model_of(source)
        elif _is_small_set(model_or_dir):
            from sczoo.model.scdd import save_dataset

            model = None
            source = read_artefact(save_dataset(model_or_dir, Path(scratch) / "saved"))
        else:
            model = model_or_dir
            columns = [code.removeprefix(_CATEGORIES) for code in allow if _CATEGORIES in code]
            model.save(Path(scratch) / "saved", include_categories=columns)
            source = read_artefact(Path(scratch) / "saved")
        report = inspect(source.path, model, allow=allow)
        report.raise_for_findings()
        fields = _gather(source.record, model, card)

        def check(finished: Path) -> None:
            inspect(finished, model, allow=allow).raise_for_findings()

        return add_artefact(
            folder,
            source,
            identifier,
            version,
            partial(complete_entry, fields, report),
            check,
        )


def _is_small_set(data: Any) -> bool:
    from anndata import AnnData

    if not isinstance(data, AnnData):
        return False
    from sczoo.errors import InputError
    from sczoo.model.scdd import is_small_set

    if not is_small_set(data):
        raise InputError(
            "Of AnnData, only distilled sets can be published: what SCDD.distill returned, with "
            "its uns['scdd']. Patients' cells are none."
        )
    return True


def _gather(record: ArtefactRecord, model: Any, card: Any) -> dict[str, Any]:
    """Gather the card's fields; of a dataset, with what its artefact says of itself."""
    if record.kind == "model":
        return gather(record, type(model), card)
    from sczoo.errors import UnknownMethodError
    from sczoo.model import get_model_class

    try:
        method_class: Any = get_model_class(record.method)
    except UnknownMethodError:
        method_class = None
    stated = to_document(card) if isinstance(card, CardFields) else dict(card or {})
    summary = record.attributes.get("summary")
    if isinstance(summary, str):
        stated.setdefault("summary", summary)
    fields = gather(record, method_class, stated)
    notice = record.attributes.get("notice")
    if isinstance(notice, str):  # the card says it, whatever its author leaves out
        fields["limits"] = list(dict.fromkeys([*(fields.get("limits") or []), notice]))
    return fields


def _model_of(source: Artefact) -> Any:
    """Build the model of a saved artefact and run its self-test; ``None`` for a dataset."""
    if source.record.kind != "model":
        return None
    from sczoo.hub._load import open_model, run_selftest

    model = open_model(source)
    run_selftest(model, source)
    return model
