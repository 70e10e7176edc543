"""Models trained with scvi-tools, as :func:`sczoo.hub.from_scvi` brings them into the zoo."""

from sczoo.model.scvitools._model import ImportedSCANVI, ImportedSCVI

__all__ = ["ImportedSCANVI", "ImportedSCVI"]
