"""Pushing a published artefact to the Hugging Face Hub."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sczoo.errors import ArtefactError, FetchError
from sczoo.hub._download import import_huggingface_hub
from sczoo.hub._fetch import open_found
from sczoo.hub._gate import inspect
from sczoo.hub._registry import find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sczoo.hub._registry import Location

__all__ = ["push_to_hf"]


def push_to_hf(
    name: str,
    repo_id: str,
    *,
    registry: Location | Sequence[Location] | None = None,
    private: bool = True,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload a published artefact in one commit.

    The release gate runs again; what the registry entry lists as released by name may pass.

    Parameters
    ----------
    name
        ``id`` or ``id:version`` of an artefact in a registry.
    repo_id
        ``ORG/REPO``; created if it does not exist.
    registry
        Further registries, which win over the others.
    private
        Whether a new repository is private.
    token
        Access token; the one of ``hf auth login`` unless given.
    endpoint
        Address of the Hub; ``HF_ENDPOINT`` or the public one unless given.

    Returns
    -------
    The source, ``hf://ORG/REPO@COMMIT``; :func:`sczoo.hub.add_source` lists it in a registry.

    Raises
    ------
    OptionalDependencyError
        If ``huggingface_hub`` is not installed: ``pip install 'sczoo[hub]'``.
    ReleaseGateError
        If the gate finds something that was not released.
    FetchError
        If the Hub refuses or cannot be reached.
    """
    hub = import_huggingface_hub()
    from huggingface_hub.errors import HfHubHTTPError

    found = find(name, registry)
    artefact = open_found(found)
    card = artefact.card
    if card is None:
        raise ArtefactError(f"{found.entry.name} has no card; publish it first.")
    inspect(artefact.path, allow=found.entry.privacy.allowed).raise_for_findings()
    contents: dict[str, Any] = {
        file: str(artefact.path / file) for file in (*artefact.manifest.files, "manifest.json")
    }
    contents["README.md"] = card.encode("utf-8")
    api = hub.HfApi(
        endpoint=endpoint or os.environ.get("HF_ENDPOINT") or None,
        token=token,
        library_name="sczoo",
    )
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.create_commit(
            repo_id,
            [
                hub.CommitOperationAdd(path_in_repo=file, path_or_fileobj=content)
                for file, content in contents.items()
            ],
            commit_message=f"{found.entry.name}, written by sczoo",
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise FetchError(
            f"{repo_id} could not be written ({type(error).__name__}: {error}). Check its name "
            "and your access: hf auth login."
        ) from error
    return f"hf://{repo_id}@{commit.oid}"
