"""What a recipe is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData


@dataclass(frozen=True)
class Recipe:
    """How one artefact is made and measured.

    Attributes
    ----------
    id, version
        Name and version of the artefact that the recipe makes.
    seed
        ``scvi.settings.seed`` during training.
    train
        Returns the trained model (or the distilled cells).
    figures
        Measures an artefact: ``figures(model, baselines=True)`` returns the ``metrics`` of its
        card; without baselines, ``baseline`` may be left out.
    card
        Returns what else the card says, given the model.
    allow
        Findings of the release gate that are released knowingly.
    tolerance
        Largest difference of a figure measured again, for other library versions.
    retrained_tolerance
        The same for a model trained again; larger where the noise of training has no seed.
    """

    id: str
    version: int
    train: Callable[[], Any]
    figures: Callable[..., list[dict[str, Any]]]
    card: Callable[[Any], dict[str, Any]]
    seed: int = 0
    allow: tuple[str, ...] = ()
    tolerance: float = 0.01
    retrained_tolerance: float = 0.01

    @property
    def name(self) -> str:
        """Id and version."""
        return f"{self.id}:{self.version}"

    @property
    def verify(self) -> str:
        """Command that measures the figures again."""
        return f"sczoo verify {self.name}"

    @property
    def reproduce(self) -> str:
        """Command that makes the artefact again."""
        return f"sczoo reproduce {self.name}"

    def make(self) -> Any:
        """Train with the recipe's seed; the session's own seed is put back."""
        import scvi

        before = scvi.settings.seed
        scvi.settings.seed = self.seed
        try:
            return self.train()
        finally:
            if before is not None:
                scvi.settings.seed = before

    def full_card(self, model: Any) -> dict[str, Any]:
        """Build the card of a model just made, figures included."""
        return {**self.card(model), "metrics": self.figures(model, baselines=True)}


def trained(
    method: str, cells: AnnData, *, setup: dict[str, Any] | None = None, **arguments: Any
) -> Any:
    """Train a model of the zoo on a copy of some cells, with the defaults of training."""
    from sczoo import model

    model_class = getattr(model, method)
    cells = cells.copy()
    model_class.setup_anndata(cells, **(setup or {}))
    made = model_class(cells, **arguments)
    made.train()
    return made


OUT_OF_SCOPE = "Diagnosis, prognosis or any decision about a patient's treatment."
