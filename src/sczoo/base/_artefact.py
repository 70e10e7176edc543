"""The zoo artefact: a folder of plain files in which nothing can run code.

=======================  ======================================================================
``artefact.json``        :class:`ArtefactRecord`
``weights.safetensors``  state dict and fitted arrays (kind ``model``)
``genes.tsv``            gene id, symbol and importance, in the model's order
``data.h5ad``            the distilled cells (kind ``dataset``)
``selftest.safetensors``  synthetic cells, the expected output, the tolerance
``card.md``              the model card
``manifest.json``        SHA-256 and size of each file above
=======================  ======================================================================

Every file is checked against the manifest before anything parses it. This module needs neither
torch nor scvi-tools.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sczoo.base._files import (
    read_regular_file,
    resolve_tree,
    sha256_bytes,
    sha256_file,
    write_tree_atomically,
)
from sczoo.base._genes_table import genes_sha256, parse_genes, render_genes
from sczoo.base._json import decode_typed, dump_json, encode_typed, parse_json
from sczoo.base._record import (
    FILE_CAPS,
    SCHEMA_VERSION,
    ArtefactRecord,
    FileEntry,
    InputContract,
    Manifest,
    SetupCall,
    check_version,
    upgrade,
    validate,
)
from sczoo.base._tensors import SelfTest, check_selftest, dump_safetensors, parse_safetensors
from sczoo.errors import ArtefactError, CorruptedArtefactError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

__all__ = [
    "FILE_CAPS",
    "SCHEMA_VERSION",
    "Artefact",
    "ArtefactRecord",
    "InputContract",
    "Manifest",
    "SelfTest",
    "SetupCall",
    "decode_typed",
    "encode_typed",
    "genes_sha256",
    "read_artefact",
    "read_manifest",
    "upgrade",
    "write_artefact",
]

MANIFEST = "manifest.json"
_MANIFEST_CAP = 64 << 10
_EXTRA_FILES = {"card.md", "data.h5ad"}
_DEFAULT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Artefact:
    """A folder whose files were checked against its manifest; made by :func:`read_artefact`."""

    path: Path
    record: ArtefactRecord
    manifest: Manifest
    manifest_sha256: str
    _genes: list[dict[str, Any]] = field(repr=False)

    def tensors(self) -> dict[str, np.ndarray]:
        """Read the arrays of ``weights.safetensors``."""
        return self._safetensors("weights.safetensors")[0]

    def genes(self) -> list[dict[str, Any]]:
        """List the genes in order: ``id``, ``symbol`` or ``None``, ``importance`` or ``None``."""
        return [dict(gene) for gene in self._genes]

    def gene_ids(self) -> list[str]:
        """List the gene identifiers in order."""
        return [gene["id"] for gene in self._genes]

    def selftest(self) -> SelfTest | None:
        """Read the self-test, or return ``None`` if the artefact has none."""
        if "selftest.safetensors" not in self.manifest.files:
            return None
        arrays, metadata = self._safetensors("selftest.safetensors")
        return check_selftest(arrays, metadata, self.record.input.n_genes)

    @property
    def data_path(self) -> Path | None:
        """Path of ``data.h5ad``, its hash just checked, or ``None``."""
        if "data.h5ad" not in self.manifest.files:
            return None
        _verify_file(self.path, "data.h5ad", self.manifest.files["data.h5ad"])
        return self.path / "data.h5ad"

    @property
    def card(self) -> str | None:
        """The text of the card, or ``None`` if it has not been published yet."""
        if "card.md" not in self.manifest.files:
            return None
        try:
            return self.read("card.md").decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorruptedArtefactError(f"card.md in {self.path} is not UTF-8 text.") from error

    def read(self, name: str) -> bytes:
        """Read one listed file whole; the bytes returned are those that were hashed."""
        return _read_verified(self.path, name, self.manifest.files.get(name))

    def _safetensors(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        if name not in self.manifest.files:
            raise CorruptedArtefactError(
                f"The artefact in {self.path} has no {name}, which kind "
                f"{self.record.kind!r} needs here."
            )
        return parse_safetensors(self.read(name), f"{name} in {self.path}")


# --- reading ----------------------------------------------------------------------------------


def read_artefact(path: str | os.PathLike[str], *, manifest_sha256: str | None = None) -> Artefact:
    """Open an artefact after checking every file against the manifest.

    Parameters
    ----------
    path
        The folder.
    manifest_sha256
        Expected hash of ``manifest.json``, as a registry states it.

    Raises
    ------
    CorruptedArtefactError
        If a file is missing, altered or malformed.
    SchemaError, SchemaVersionError
        If a document does not follow its schema, or was written by a newer sczoo.
    """
    path = resolve_tree(path)
    manifest, digest = read_manifest(path, manifest_sha256=manifest_sha256)
    for name, entry in manifest.files.items():
        _verify_file(path, name, entry)
    document = parse_json(
        _read_verified(path, "artefact.json", manifest.files["artefact.json"]),
        where=f"artefact.json in {path}",
    )
    record = validate(ArtefactRecord, upgrade(document), f"artefact.json in {path}")
    genes = parse_genes(
        _read_verified(path, "genes.tsv", manifest.files["genes.tsv"]),
        where=f"genes.tsv in {path}",
    )
    _check_agreement(record, set(manifest.files), [gene["id"] for gene in genes], str(path))
    return Artefact(path, record, manifest, digest, genes)


def read_manifest(
    path: str | os.PathLike[str], *, manifest_sha256: str | None = None
) -> tuple[Manifest, str]:
    """Read ``manifest.json`` of a folder; returns it with its SHA-256."""
    path = Path(path)
    data = read_regular_file(path / MANIFEST, max_bytes=_MANIFEST_CAP)
    digest = sha256_bytes(data)
    if manifest_sha256 is not None and digest != manifest_sha256:
        raise CorruptedArtefactError(
            f"{MANIFEST} in {path} has the hash {digest[:12]}... but {manifest_sha256[:12]}... "
            "was expected: this is not the artefact that was published. Fetch it again."
        )
    document = parse_json(data, where=f"{MANIFEST} in {path}")
    check_version(document, f"{MANIFEST} in {path}")
    return validate(Manifest, document, f"{MANIFEST} in {path}"), digest


def _verify_file(folder: Path, name: str, entry: FileEntry) -> None:
    path = folder / name
    try:
        size = os.lstat(path).st_size
    except OSError as error:
        raise CorruptedArtefactError(
            f"{name} is missing in {folder}; fetch or save the artefact again."
        ) from error
    if size != entry.size:
        raise CorruptedArtefactError(
            f"{name} in {folder} has {size} bytes, the manifest says {entry.size}. Fetch or save "
            "the artefact again."
        )
    if sha256_file(path) != entry.sha256:
        raise _altered(folder, name)


def _read_verified(folder: Path, name: str, entry: FileEntry | None) -> bytes:
    if entry is None:
        raise CorruptedArtefactError(f"The artefact in {folder} has no {name}.")
    data = read_regular_file(folder / name, max_bytes=FILE_CAPS[name])
    if len(data) != entry.size or sha256_bytes(data) != entry.sha256:
        raise _altered(folder, name)
    return data


def _altered(folder: Path, name: str) -> CorruptedArtefactError:
    return CorruptedArtefactError(
        f"{name} in {folder} has another hash than the manifest says: it was altered after it was "
        "written. Fetch or save the artefact again."
    )


def _check_agreement(record: ArtefactRecord, files: set[str], ids: list[str], where: str) -> None:
    needed = "weights.safetensors" if record.kind == "model" else "data.h5ad"
    if needed not in files:
        raise CorruptedArtefactError(
            f"The artefact {where} has no {needed}, which kind {record.kind!r} needs."
        )
    if len(ids) != record.input.n_genes:
        raise CorruptedArtefactError(
            f"genes.tsv of the artefact {where} lists {len(ids)} genes, artefact.json says "
            f"{record.input.n_genes}."
        )
    if genes_sha256(ids) != record.input.genes_sha256:
        raise CorruptedArtefactError(
            f"genes.tsv of the artefact {where} lists other genes, or another order, than "
            "artefact.json says (genes_sha256 differs)."
        )


# --- writing ----------------------------------------------------------------------------------


def write_artefact(
    path: str | os.PathLike[str],
    record: ArtefactRecord,
    *,
    tensors: Mapping[str, np.ndarray] | None,
    genes: Sequence[dict[str, Any]],
    selftest: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an artefact in one step: a crash leaves the old folder or the new one.

    Parameters
    ----------
    path
        The folder to create.
    record
        The content of ``artefact.json``.
    tensors
        Arrays of ``weights.safetensors``; needed for kind ``model``.
    genes
        One dictionary per gene, in order: ``id``, ``symbol``, ``importance``.
    selftest
        Arrays ``x`` (cells by genes) and ``expected`` (cells by outputs); optionally the number
        ``tolerance`` (largest allowed absolute difference, 1e-4 unless given).
    extra_files
        Content of ``card.md`` and, for kind ``dataset``, ``data.h5ad``.
    overwrite
        Replace an existing artefact. A folder that holds anything else is never replaced.

    Returns
    -------
    The absolute path of the folder.
    """
    target = Path(os.path.abspath(path))
    if overwrite:
        _check_is_artefact_folder(target)
    files = _encode_files(record, tensors, genes, selftest, extra_files or {})
    manifest = Manifest(
        files={
            name: FileEntry(sha256=sha256_bytes(data), size=len(data))
            for name, data in sorted(files.items())
        }
    )
    document = manifest.model_dump(mode="json", by_alias=True)
    files[MANIFEST] = dump_json(document, where=MANIFEST)

    def fill(folder: Path) -> None:
        for name, data in files.items():
            (folder / name).write_bytes(data)

    write_tree_atomically(target, fill, overwrite=overwrite)
    return target


def _check_is_artefact_folder(target: Path) -> None:
    if target.is_symlink() or not target.is_dir():
        return
    foreign = sorted({entry.name for entry in target.iterdir()} - set(FILE_CAPS) - {MANIFEST})
    if foreign:
        raise ArtefactError(
            f"{target} holds files that are not of an artefact ({', '.join(foreign[:3])}); it was "
            "left alone. Choose another folder."
        )


def _encode_files(
    record: ArtefactRecord,
    tensors: Mapping[str, np.ndarray] | None,
    genes: Sequence[dict[str, Any]],
    selftest: Mapping[str, Any] | None,
    extra_files: Mapping[str, bytes],
) -> dict[str, bytes]:
    foreign = sorted(set(extra_files) - _EXTRA_FILES)
    if foreign:
        raise ArtefactError(
            f"An artefact cannot hold {', '.join(foreign[:3])}; only card.md and data.h5ad may be "
            "added."
        )
    document = record.model_dump(mode="json", by_alias=True)
    validate(ArtefactRecord, document, "artefact.json")  # a record may have been changed in place
    files = {
        "artefact.json": dump_json(document, where="artefact.json"),
        "genes.tsv": render_genes(genes),
        **extra_files,
    }
    if tensors is not None:
        files["weights.safetensors"] = dump_safetensors(tensors, "weights.safetensors", None)
    if selftest is not None:
        arrays = {name: value for name, value in selftest.items() if name != "tolerance"}
        metadata = {"tolerance": repr(float(selftest.get("tolerance", _DEFAULT_TOLERANCE)))}
        check_selftest(arrays, metadata, record.input.n_genes)
        files["selftest.safetensors"] = dump_safetensors(arrays, "selftest.safetensors", metadata)
    for name, data in files.items():
        if len(data) > FILE_CAPS[name]:
            raise ArtefactError(f"{name} would have {len(data)} bytes; at most {FILE_CAPS[name]}.")
    _check_agreement(record, set(files), [gene["id"] for gene in genes], "to be written")
    return files
