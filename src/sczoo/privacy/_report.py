"""The audit of a model or of synthetic data: attacks, bounds, one table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.base._checks import check_categorical
from sczoo.errors import InputError
from sczoo.privacy._accounting import round_up
from sczoo.privacy._audit import AuditBound, one_run_bound
from sczoo.privacy._leakage import nearest_synthetic
from sczoo.privacy._membership import (
    Membership,
    advantage_bound,
    cell_scores,
    donor_scores,
    membership,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

__all__ = ["AuditReport", "audit"]


@dataclass(frozen=True)
class AuditReport:
    """What attacks found. No attack that fails is a proof of privacy.

    Parameters
    ----------
    attacks
        Of each subject (``"model"``, ``"twin"``, ``"synthetic"``) and level (``"cell"``,
        ``"donor"``).
    bounds
        Lower bound on epsilon of each, valid where membership was decided by coins.
    claimed_epsilon, claimed_delta, claimed_unit
        The claim, if there is one.
    random_split
        Whether membership was decided by coins.
    """

    attacks: dict[tuple[str, str], Membership]
    bounds: dict[tuple[str, str], AuditBound]
    claimed_epsilon: float | None = None
    claimed_delta: float | None = None
    claimed_unit: str | None = None
    random_split: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def table(self) -> pd.DataFrame:
        """One row for each subject and level, and for chance."""
        import pandas as pd

        rows = []
        for (subject, level), found in self.attacks.items():
            bound = self.bounds.get((subject, level))
            rows.append(
                {
                    "subject": subject,
                    "level": level,
                    "auc": found.auc,
                    "auc_low": found.auc_ci95[0],
                    "auc_high": found.auc_ci95[1],
                    "tpr_at_1_fpr": found.tpr_at_1_fpr,
                    "tpr_low": found.tpr_ci95[0],
                    "tpr_high": found.tpr_ci95[1],
                    "epsilon_at_least": np.nan if bound is None else bound.epsilon,
                    "members": found.n_members,
                    "others": found.n_others,
                }
            )
        levels = dict.fromkeys(level for _, level in self.attacks)
        for level in levels:
            row = {"subject": "chance", "level": level, "auc": 0.5, "tpr_at_1_fpr": 0.01}
            rows.append(row | {"epsilon_at_least": 0.0})
        return pd.DataFrame(rows)

    @property
    def contradicted(self) -> bool:
        """Whether the attack, not that on the twin, shows more than was claimed."""
        if self.claimed_epsilon is None:
            return False
        return any(
            bound.epsilon > self.claimed_epsilon
            for (subject, level), bound in self.bounds.items()
            if subject != "twin" and level == self.claimed_unit
        )

    @property
    def _verdict(self) -> str:
        """What this audit says of the claim."""
        if self.contradicted:
            return "CONTRADICTED by this audit"
        if not any(
            subject != "twin" and level == self.claimed_unit for subject, level in self.bounds
        ):
            return f"not tested: no lower bound for a {self.claimed_unit} was measured"
        return "not contradicted"

    @property
    def auc_bound(self) -> float | None:
        """Largest AUC that the claim allows any attack, if there is a claim."""
        if self.claimed_epsilon is None or self.claimed_delta is None:
            return None
        return advantage_bound(self.claimed_epsilon, self.claimed_delta)

    def card_block(self) -> dict[str, Any]:
        """Plain values for ``card={"privacy": {"audit": ...}}`` of :func:`sczoo.hub.publish`."""
        block: dict[str, Any] = {}
        for (subject, level), found in self.attacks.items():
            low, high = found.auc_ci95
            text = (
                f"AUC {found.auc:.3f} ({low:.3f} to {high:.3f}), TPR at 1 % FPR "
                f"{found.tpr_at_1_fpr:.3f}; {found.n_members} members, {found.n_others} others"
            )
            bound = self.bounds.get((subject, level))
            if bound is not None:
                text += f"; epsilon at least {bound.epsilon:.2f} (95 %)"
            block[f"membership of a {level}, {subject}"] = text
        if self.claimed_epsilon is not None:
            block["claim"] = (
                f"epsilon {round_up(self.claimed_epsilon, 3)} for each {self.claimed_unit}; "
                f"{self._verdict}"
            )
        return block

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "attacks": {" ".join(key): asdict(value) for key, value in self.attacks.items()},
            "bounds": {" ".join(key): asdict(value) for key, value in self.bounds.items()},
            "claimed_epsilon": self.claimed_epsilon,
            "claimed_delta": self.claimed_delta,
            "claimed_unit": self.claimed_unit,
            "auc_bound": self.auc_bound,
            "contradicted": self.contradicted,
            "random_split": self.random_split,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [self.table.round(3).to_string(index=False)]
        if self.claimed_epsilon is not None:
            lines.append(self.card_block()["claim"])
        return "\n".join([*lines, *self.notes])


def audit(
    target: Any,
    members: AnnData,
    others: AnnData,
    *,
    donor_key: str | None = None,
    twin: Any = None,
    reference: Any = None,
    epsilon: float | None = None,
    delta: float | None = None,
    unit: str | None = None,
    random_split: bool = False,
    layer: str | None = None,
    seed: int = 0,
) -> AuditReport:
    """Attack a model, or synthetic cells, and say what the attack found.

    Parameters
    ----------
    target
        A trained model (scvi-tools' or the zoo's), an AnnData of synthetic cells, or a function
        from an AnnData to one score per cell, higher for cells that it knows.
    members
        Cells that were in its training data.
    others
        Cells of the same kind that were not: best of other donors of the same study.
    donor_key
        Column of ``obs`` with donors: attack donors too, by the mean over their cells.
    twin
        The same model trained without privacy. If the attack finds nothing there, it shows nothing
        at all.
    reference
        A model of the same kind that saw neither: its scores are subtracted, which sharpens the
        attack.
    epsilon, delta, unit
        The claim; of a :class:`~sczoo.model.DPDCAN` its own by default. Elsewhere epsilon needs
        its delta, and the unit is ``"cell"`` by default.
    random_split
        Whether each cell, or each donor where there is a `donor_key`, became a member by a fair
        coin of its own. Only then is the lower bound on epsilon valid, and given.
    layer
        Layer with the expression, for synthetic cells.
    seed
        Of the bootstrap.

    Returns
    -------
    :class:`AuditReport`: ``print`` it, or use its ``table`` and ``card_block()``;
    :func:`sczoo.pl.audit` draws it.

    Examples
    --------
    >>> report = sczoo.privacy.audit(model, train_cells, held_out_cells, donor_key="donor")
    >>> print(report)
    """
    from anndata import AnnData

    for cells, name in ((members, "members"), (others, "others")):
        if not isinstance(cells, AnnData):
            raise InputError(f"{name} must be an AnnData, not a {type(cells).__name__}.")
        if donor_key is not None:
            check_categorical(cells, donor_key)
    if donor_key is not None:
        both = set(members.obs[donor_key].astype(str)) & set(others.obs[donor_key].astype(str))
        if both:
            raise InputError(
                f"{len(both)} donor(s) have cells among members and others: donors would be told "
                "from themselves. Split by donor."
            )
    epsilon = getattr(target, "epsilon", None) if epsilon is None else epsilon
    delta = getattr(target, "delta", None) if delta is None else delta
    if epsilon is not None and delta is None:
        raise InputError(
            f"epsilon={epsilon:g} without a delta: an attack may show more than epsilon with "
            "probability delta, so it cannot be said what contradicts the claim. Pass delta= "
            "(0 for a claim without exception)."
        )
    if unit is None and epsilon is not None:
        unit = getattr(target, "_unit", "cell")
    subjects = {"synthetic" if isinstance(target, AnnData) else "model": target}
    if twin is not None:
        subjects["twin"] = twin
    attacks, bounds = {}, {}
    for subject, attacked in subjects.items():
        scores = [_score(attacked, reference, cells, layer) for cells in (members, others)]
        levels = {"cell": scores}
        if donor_key is not None:
            levels["donor"] = [
                donor_scores(values, cells.obs[donor_key])[0]
                for values, cells in zip(scores, (members, others), strict=True)
            ]
        coin = "donor" if donor_key is not None else "cell"
        for level, (inside, outside) in levels.items():
            # cells of a donor are in or out together, so they are drawn together too
            groups = None
            if donor_key is not None and level == "cell":
                groups = (members.obs[donor_key], others.obs[donor_key])
            attacks[subject, level] = membership(inside, outside, seed=seed, groups=groups)
            if random_split and level == coin and len(inside) + len(outside) >= 10:
                truth = np.repeat([True, False], [len(inside), len(outside)])
                bounds[subject, level] = one_run_bound(
                    np.concatenate([inside, outside]), truth, delta=delta or 0.0
                )
    notes = []
    if twin is not None and attacks["twin", list(levels)[-1]].auc_ci95[0] <= 0.5:
        notes.append("The attack does not find the members of the twin: it shows nothing here.")
    if not random_split:
        notes.append("Membership was not decided by coins: no lower bound on epsilon is given.")
    return AuditReport(attacks, bounds, epsilon, delta, unit, random_split, notes)


def _score(target: Any, reference: Any, cells: AnnData, layer: str | None) -> np.ndarray:
    from anndata import AnnData

    if isinstance(target, AnnData):
        return nearest_synthetic(target, cells, layer=layer)
    scores = cell_scores(target, cells)
    if reference is not None:
        scores = scores - cell_scores(reference, cells)
    return scores
