"""The typed errors of sczoo.

Every error names the place (layer, cell, gene, file, field) and the remedy. They all derive from
:class:`SczooError`; those about a user's data are also a :class:`ValueError`, and those about a
missing key also a :class:`KeyError`, so that code written against scvi-tools keeps working.
"""

from __future__ import annotations

__all__ = [
    "ArtefactError",
    "CorruptedArtefactError",
    "DuplicateGenesError",
    "EmptyDataError",
    "FetchError",
    "GeneOverlapError",
    "InputError",
    "IntegrityError",
    "MissingKeyError",
    "MissingValuesError",
    "NegativeValuesError",
    "NotCountsError",
    "NotFiniteError",
    "NotLogNormalisedError",
    "NotTrainedError",
    "OptionalDependencyError",
    "PrivacyBudgetError",
    "PrivacyError",
    "RegistryError",
    "ReleaseGateError",
    "RevokedError",
    "SchemaError",
    "SchemaVersionError",
    "SczooError",
    "SelfTestError",
    "SignatureError",
    "SpeciesMismatchError",
    "TooFewCellsError",
    "TooFewGenesError",
    "UnknownArtefactError",
    "UnknownMethodError",
    "ViewError",
]


class SczooError(Exception):
    """Base of every error that sczoo raises on purpose."""


# --- the user's data --------------------------------------------------------------------------


class InputError(SczooError, ValueError):
    """The data cannot be used as they are."""


class EmptyDataError(InputError):
    """No cells, no genes, or no matrix."""


class TooFewCellsError(InputError):
    """Fewer cells than the method needs."""


class TooFewGenesError(InputError):
    """Fewer genes than the method needs."""


class NotFiniteError(InputError):
    """NaN or infinity in the matrix."""


class NegativeValuesError(InputError):
    """A negative value where expression must not be negative."""


class NotCountsError(InputError):
    """Values are not whole numbers although the method needs raw counts."""


class NotLogNormalisedError(InputError):
    """Values look like raw counts although the model reads log-normalised ones."""


class DuplicateGenesError(InputError):
    """Gene names are not unique."""


class ViewError(InputError):
    """The object is a view of another AnnData."""


class MissingValuesError(InputError):
    """A categorical annotation has missing values."""


class MissingKeyError(InputError, KeyError):
    """A layer, an ``obs`` column, an ``obsm`` key or a modality does not exist."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class GeneOverlapError(InputError):
    """Too few of the model's genes are in the query."""


class SpeciesMismatchError(GeneOverlapError):
    """Gene names look like those of another species."""


# --- privacy ----------------------------------------------------------------------------------


class PrivacyError(InputError):
    """What was asked for would break, or falsely claim, a privacy guarantee."""


class PrivacyBudgetError(PrivacyError):
    """The privacy budget is spent: more training needs a larger one, or a new model."""


# --- models -----------------------------------------------------------------------------------


class NotTrainedError(SczooError, RuntimeError):
    """Results were asked of a model that has not been trained."""


class OptionalDependencyError(SczooError, ImportError):
    """A feature needs an optional library; the message says how to install it."""


# --- artefacts and registries -----------------------------------------------------------------


class ArtefactError(SczooError):
    """An artefact cannot be written, read or used."""


class CorruptedArtefactError(ArtefactError):
    """A file of an artefact is missing, truncated, altered or malformed."""


class SchemaError(ArtefactError):
    """A JSON or YAML document does not follow its schema."""


class SchemaVersionError(SchemaError):
    """A document was written by a newer version of sczoo."""


class SelfTestError(ArtefactError):
    """A loaded model does not reproduce the outputs stored with it."""


class UnknownMethodError(ArtefactError):
    """The method is not on the allow-list of installed methods."""


class ReleaseGateError(ArtefactError):
    """The artefact holds content about single patients that was not allowed by name."""


class RegistryError(SczooError):
    """A registry cannot be read or changed."""


class UnknownArtefactError(RegistryError, KeyError):
    """No entry of that name in any registry."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class RevokedError(RegistryError):
    """The entry was revoked by its owner."""


class FetchError(RegistryError):
    """An artefact could not be downloaded."""


class IntegrityError(RegistryError):
    """A fetched file has another size or hash than the registry says."""


class SignatureError(RegistryError):
    """A registry whose key is pinned has no valid signature of that key."""
