"""Faults in matching the genes of new cells and in scoring them."""

from __future__ import annotations

import numpy as np
from faults import FaultyModel, caught_by

from sczoo.base._genes import GeneAlignment
from sczoo.errors import GeneOverlapError

# --- genes ---------------------------------------------------------------------------------------


@caught_by("permuted_genes", "extra_genes", "too_few_genes", "lower_case_symbols")
class IgnoresGeneNames(FaultyModel):
    def align_genes(self, adata, min_coverage=None):
        n_genes = len(self.var_names)
        if min(n_genes, self._expression(adata).n_vars) < n_genes:
            raise GeneOverlapError("The query has fewer genes than the model.")
        return GeneAlignment(np.arange(n_genes), n_genes, (), (), 0, 1.0, 1.0)


@caught_by(
    "lower_case_symbols",
    "mouse_symbols",
    "versioned_identifiers",
    "the_other_namespace",
    "mouse_identifiers",
)
class MatchesLetterByLetterOnly(FaultyModel):
    def align_genes(self, adata, min_coverage=None):
        names = list(adata.var_names)
        found = [names.index(n) if n in names else -1 for n in self.var_names]
        share = np.mean(np.array(found) >= 0)
        if share < 0.8:
            raise GeneOverlapError(f"Only {share:.0%} of the genes were found in the query.")
        return super().align_genes(adata, min_coverage)


@caught_by("too_few_genes")
class AcceptsAnyCoverage(FaultyModel):
    def align_genes(self, adata, min_coverage=None):
        return super().align_genes(adata, 0.0)


@caught_by("some_missing_genes")
class DoesNotReportMissingGenes(FaultyModel):
    def align_genes(self, adata, min_coverage=None):
        found = super().align_genes(adata, min_coverage)
        object.__setattr__(found, "missing", ())
        return found


@caught_by("prepared_query", "some_missing_genes")
class PreparesWithoutAligning(FaultyModel):
    @staticmethod
    def prepare_query_anndata(adata, reference_model, *, min_coverage=None, layer=None):
        return adata.copy()


# --- queries -------------------------------------------------------------------------------------


@caught_by("patients_are_released")
class KeepsTheQuery(FaultyModel):
    seen: list = []  # noqa: RUF012 - the fault

    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        self.seen.append(adata)
        return super().get_latent_representation(adata, indices, batch_size)


@caught_by("patients_are_released")
class KeepsACopyOfTheQuery(FaultyModel):
    seen: list = []  # noqa: RUF012 - the fault

    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        self.seen.append(adata.copy() if adata is not None else None)
        return super().get_latent_representation(adata, indices, batch_size)


@caught_by("patients_are_released")
class RegistersTheQuery(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        if adata is not None and not adata.is_view and not adata.isbacked:
            self._validate_anndata(self.prepare_query_anndata(adata, self))
        return super().get_latent_representation(adata, indices, batch_size)

    def _validate_anndata(self, adata):
        type(self).setup_anndata(adata)


@caught_by("query_is_unchanged")
class WritesIntoTheQuery(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        if adata is not None:
            adata.uns["last_scored_by"] = "toy"
        return super().get_latent_representation(adata, indices, batch_size)


@caught_by("query_is_unchanged")
class NormalisesTheQueryInPlace(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        latent = super().get_latent_representation(adata, indices, batch_size)
        if adata is not None and not adata.isbacked and hasattr(adata.X, "data"):
            adata.X.data[:1] += 1
        return latent


@caught_by("order_of_indices")
class ReversesTheLastBatch(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        latent = super().get_latent_representation(adata, indices, batch_size)
        if indices is not None:
            latent[-5:] = latent[-5:][::-1].copy()
        return latent


@caught_by("order_of_indices_on_a_file")
class SortsIndicesOfFiles(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        if adata is not None and adata.isbacked and indices is not None:
            indices = np.sort(np.arange(adata.n_obs)[indices])
        return super().get_latent_representation(adata, indices, batch_size)


@caught_by("no_indices")
class FailsForNoCells(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        self._require_trained()
        batches = self._iter_batches(adata, indices, batch_size)
        return np.concatenate([self.latent_of(batch["X"]) for batch in batches])


@caught_by("refuses_impossible_indices")
class WrapsIndices(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        if indices is not None and np.asarray(indices).dtype != bool:
            n_obs = (self.adata if adata is None else adata).n_obs
            indices = np.asarray(indices).astype(int) % n_obs
        return super().get_latent_representation(adata, indices, batch_size)


@caught_by("batch_size_changes_nothing", "evaluation_mode")
class NormalisesByTheBatch(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        self._require_trained()
        self.module.train()
        self.module.norm.momentum = 0.0
        return super().get_latent_representation(adata, indices, batch_size)


@caught_by("a_view_as_query")
class RefusesViewsAsQueries(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        if adata is not None and adata.is_view:
            adata._init_as_actual(adata.copy())
        return super().get_latent_representation(adata, indices, batch_size)


@caught_by("results_of_the_training_cells")
class RemembersTheTrainingResults(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        latent = super().get_latent_representation(adata, indices, batch_size)
        return latent[::-1].copy() if adata is None else latent


@caught_by("refuses_bad_values_in_a_query")
class AcceptsNaNInAQuery(FaultyModel):
    def _check_query_block(self, *args):
        pass


@caught_by("annotate")
class AnnotatesMoreThanItSays(FaultyModel):
    def annotate(self, adata, *, key_added=None):
        written = super().annotate(adata, key_added=key_added)
        adata.obs["one_more_column"] = 1
        return written


@caught_by("training_cells_are_unchanged")
class ChangesTheTrainingCells(FaultyModel):
    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        self.adata.obs["was_trained_on"] = True
