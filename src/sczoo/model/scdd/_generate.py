"""``generate``: cells of given classes, without data and without optimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from sczoo.errors import InputError
from sczoo.model.scdd._arguments import check_choices, check_seed, whole_number
from sczoo.model.scdd._diffusion import ddim
from sczoo.model.scdd._emission import Emission
from sczoo.model.scdd._making import Candidate

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["GenerateMixin"]


class GenerateMixin:
    """Making cells without data."""

    def generate(
        self: Any,
        labels: Any,
        n: int = 10,
        *,
        emission: Literal["nb", "mode", "typical"] = "nb",
        guidance: float = 0.0,
        steps: int = 1,
        seed: int = 0,
    ) -> AnnData:
        """Generate cells of given classes, without optimisation and without data.

        Parameters
        ----------
        labels
            A class, or several.
        n
            Cells of each.
        emission
            ``"nb"``: cells as noisy as real ones. ``"mode"`` and ``"typical"``: without noise.
        guidance
            Weight of the class guidance.
        steps
            1: the single-step generator. More: the teacher's flow in as many steps.
        seed
            Seed of all draws.

        Returns
        -------
        As of :meth:`distill`. Depths are drawn from a log-normal distribution with the mean and
        spread of the class, batches by their share in it.

        Raises
        ------
        InputError
            A class is not known, or an argument makes no sense.
        """
        self._require_stages()
        check_choices(emission=(emission, ("nb", "mode", "typical")))
        whole_number("n", n)
        whole_number("steps", steps)
        seed = check_seed(seed)
        names = [str(name) for name in self.class_names]
        wanted = np.atleast_1d(np.asarray(labels, dtype=object)).tolist()
        unknown = [str(label) for label in wanted if str(label) not in names]
        if unknown or not wanted:
            raise InputError(
                f"The model has no class {unknown[0] if unknown else ''!r}; it has "
                f"{', '.join(names[:20])}."
            )
        known = np.array([names.index(str(label)) for label in wanted])
        codes = np.repeat(known, n)
        rng = np.random.default_rng(seed)
        noise = torch.Generator().manual_seed(int(seed))
        labels_in_use = np.arange(self.module.n_labels)
        batch = self._allot_batches(labels_in_use, codes, rng)
        conditions = self._conditions(codes, batch)
        one_step = self._one_step(guidance)
        with torch.no_grad():
            start = torch.randn(len(codes), self.module.n_latent, generator=noise)
            start = start.to(self.module.device)
            if steps == 1:
                latents = one_step(start, conditions)
            else:
                latents = ddim(
                    self.module.denoiser, start, conditions, int(steps), guidance=guidance
                )
            given = None if batch is None else conditions[:, 1]
            shares = self.module.decode_standard(latents, given).exp().cpu().numpy()
        mean, sd = (
            getattr(self.module, name).cpu().numpy()[codes]
            for name in ("library_mean", "library_sd")
        )
        totals = np.maximum(np.rint(np.exp(rng.normal(mean, sd))), 1).astype(np.int64)
        chosen = {
            "nb": Emission("nb"),
            "mode": Emission("mode"),
            "typical": Emission("typical", 0.6, 5.0),
        }[emission]
        best = Candidate(start, latents, shares, totals, chosen)
        record = {
            "kind": "generation",
            "method": "scdd",
            "seed": int(seed),
            "generator": self._generator_kind if steps == 1 else "teacher",
            "steps": int(steps),
            "guidance": float(guidance),
            **best.record(),
        }
        return self._assemble(best, codes, labels_in_use, batch, record, rng=rng)
