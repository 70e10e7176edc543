from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sczoo.model.sce2tm import SCE2TMModule
from sczoo.model.sce2tm._module import (
    KNOWLEDGE,
    NEIGHBOUR_KNOWLEDGE,
    NEIGHBOUR_X,
    NEIGHBOUR_X_KNOWLEDGE,
)

N_CELLS, N_GENES, N_TOPICS, WIDTH = 40, 90, 12, 16


def make_batch(seed=0, n_cells=N_CELLS):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    def counts():
        return torch.poisson(torch.exp(draw(n_cells, N_GENES)), generator=generator)

    return {
        "X": counts(),
        KNOWLEDGE: draw(n_cells, WIDTH),
        NEIGHBOUR_X: counts(),
        NEIGHBOUR_KNOWLEDGE: draw(n_cells, WIDTH),
        NEIGHBOUR_X_KNOWLEDGE: draw(n_cells, WIDTH),
    }


def make_module(preset="default", seed=0, **kwargs):
    torch.manual_seed(seed)
    module = SCE2TMModule(N_GENES, N_TOPICS, preset=preset, n_knowledge=WIDTH, **kwargs)
    rng = np.random.default_rng(seed)
    fraction = rng.dirichlet(np.ones(N_GENES))
    module.set_constants(
        normalises=True,
        target_total=1e4,
        target_depth=300.0,
        gene_mean=torch.from_numpy(rng.gamma(1.0, size=N_GENES)).float(),
        gene_fraction=torch.from_numpy(fraction).float(),
    )
    return module


def moved(module):
    """Move the running statistics of batch normalisation away from their start."""
    module.train()
    for seed in range(5):
        module(make_batch(seed))
    return module.eval()


class PublishedInDoublePrecision:
    """Sections 2 and 3 of the publication's equations, in numpy, from the module's weights."""

    def __init__(self, module):
        self.w = {k: v.double().numpy() for k, v in module.state_dict().items()}

    def linear(self, x, name):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, x, name):
        mean, var = self.w[f"{name}.running_mean"], self.w[f"{name}.running_var"]
        scaled = (x - mean) / np.sqrt(var + 1e-5)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    @staticmethod
    def softmax(x):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    @staticmethod
    def log_normalise(counts):
        return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)

    def encode(self, x):
        h = np.tanh(self.norm(self.linear(x, "encoder.first"), "encoder.trunk.0"))
        h = self.linear(h, "encoder.trunk.2")
        return [
            self.norm(self.linear(h, f"encoder.{head}.0"), f"encoder.{head}.1")
            for head in ("mean", "log_variance")
        ]

    def phi(self, knowledge):
        h = np.tanh(self.norm(self.linear(knowledge, "head.layers.0"), "head.layers.1"))
        return self.softmax(self.linear(h, "head.layers.3"))

    def distil(self, p, r):
        columns = np.concatenate([p.T, r.T])
        columns /= np.linalg.norm(columns, axis=1, keepdims=True)
        s = np.exp(columns @ columns.T / 0.5)
        k = p.shape[1]
        losses = []
        for a in range(2 * k):
            others = [b for b in range(2 * k) if b != a]
            losses.append(-math.log(s[a, (a + k) % (2 * k)] / s[a, others].sum()))
        return float(np.mean(losses))

    @staticmethod
    def entropy(p):
        mean = p.mean(axis=0)
        return float(-(mean * np.log(np.maximum(mean, 1e-9))).sum())

    def terms(self, batch):
        b = {k: v.double().numpy() for k, v in batch.items()}
        x = self.log_normalise(b["X"])
        mu, logvar = self.encode(x)
        theta = self.softmax(mu)
        m = ((self.w["topic_embedding"][:, None] - self.w["gene_embedding"][None]) ** 2).sum(-1)
        beta = self.softmax(-m.T / 0.2).T
        xhat = self.softmax(self.norm(theta @ beta, "decoder.norm"))
        s2 = 1 - 1 / N_TOPICS
        kl = 0.5 * ((np.exp(logvar) / s2 + mu**2 / s2 + np.log(s2) - logvar).sum(1) - N_TOPICS)
        theta_n = self.softmax(self.encode(self.log_normalise(b[NEIGHBOUR_X]))[0])
        phi, phi_n = self.phi(b[KNOWLEDGE]), self.phi(b[NEIGHBOUR_KNOWLEDGE])
        distil = self.distil(phi, theta_n) + self.distil(theta, phi_n)
        agree = float(-np.log((theta * phi).sum(1)).mean())
        balance = self.entropy(theta) + self.entropy(phi)
        return {
            "reconstruction": -(x * np.log(xhat)).sum(1),
            "kl": kl,
            "ecr": 100 * (self.plan(m) * m).sum(),
            "distill": distil,
            "consistency": agree,
            "balance": balance,
            "guidance": distil + agree - 5 * balance,
        }

    @staticmethod
    def plan(m):
        kernel = np.exp(-20 * m)
        n_topics, n_genes = m.shape
        u = np.full(n_topics, 1 / n_topics)
        for iteration in range(1000):
            v = (1 / n_genes) / (kernel.T @ u + 1e-16)
            u = (1 / n_topics) / (kernel @ v + 1e-16)
            if iteration % 50 == 0:
                if np.abs(v * (kernel.T @ u) - 1 / n_genes).sum() <= 0.005:
                    break
        return u[:, None] * kernel * v[None]


def test_published_terms_equal_double_precision():
    module = moved(make_module("paper"))
    batch = make_batch(99)
    with torch.no_grad():
        _, _, found = module(batch)
    expected = PublishedInDoublePrecision(module).terms(batch)
    np.testing.assert_allclose(
        found.reconstruction_loss["reconstruction_loss"].numpy(),
        expected["reconstruction"],
        rtol=1e-5,
    )
    np.testing.assert_allclose(found.kl_local["kl_local"].numpy(), expected["kl"], rtol=1e-5)
    for name in ("ecr", "distill", "consistency", "balance"):
        assert float(found.extra_metrics[name]) == pytest.approx(expected[name], rel=1e-5), name
    total = (
        expected["reconstruction"].mean()
        + expected["kl"].mean()
        + expected["ecr"]
        + expected["guidance"]
    )
    assert float(found.loss) == pytest.approx(total, rel=1e-5)


def test_published_sizes():
    module = SCE2TMModule(5000, 100, preset="paper", n_knowledge=512)
    # 3.47 million in the publication, of which 1.04 million belong to two layers without use
    n_parameters = sum(p.numel() for p in module.parameters())
    assert n_parameters == pytest.approx(3.47e6 - 1.04e6, rel=0.01)
    assert module.prior_variance == 0.99


def test_default_terms_equal_double_precision():
    module = make_module("default").eval()
    batch = make_batch(7)
    with torch.no_grad():
        _, _, found = module(batch)
    w = {k: v.double().numpy() for k, v in module.state_dict().items()}
    counts = batch["X"].double().numpy()
    share = counts / counts.sum(axis=1, keepdims=True)
    x = np.log1p(1e4 * share) - w["gene_mean"]
    mu = x @ w["encoder.mean.weight"].T + w["encoder.mean.bias"]
    theta = PublishedInDoublePrecision.softmax(mu)
    m = ((w["topic_embedding"][:, None] - w["gene_embedding"][None]) ** 2).sum(-1)
    beta = PublishedInDoublePrecision.softmax(-m.T / 0.2).T
    scale = np.exp(w["decoder.log_scale"])
    logits = w["decoder.background"] + scale * (theta @ beta - 1 / N_TOPICS)
    xhat = PublishedInDoublePrecision.softmax(logits)
    reconstruction = -(np.log1p(300 * share) * np.log(xhat)).sum(1)
    np.testing.assert_allclose(
        found.reconstruction_loss["reconstruction_loss"].numpy(), reconstruction, rtol=1e-4
    )
    distance = [
        np.sqrt(((r[:, None] - r[None]) ** 2).sum(-1))[np.triu_indices(N_CELLS, 1)]
        for r in (mu, batch[KNOWLEDGE].double().numpy())
    ]
    stress = ((distance[0] / distance[0].mean() - distance[1] / distance[1].mean()) ** 2).mean()
    assert float(found.extra_metrics["geometry"]) == pytest.approx(stress, rel=1e-4)
    expected = (
        reconstruction.mean()
        + module.prior_weight * float(found.kl_local["kl_local"].mean())
        + float(found.extra_metrics["ecr"])
        + module.guidance_weight * reconstruction.mean() * stress
    )
    assert float(found.loss) == pytest.approx(expected, rel=1e-4)


def test_missing_genes_are_imputed_and_the_library_size_is_corrected():
    module = make_module()
    x = make_batch(1)["X"]
    mask = torch.ones(N_GENES, dtype=torch.bool)
    mask[::7] = False
    found = module.log_normalise(x * mask, mask)
    total = (x * mask).sum(1, keepdim=True) / module.gene_fraction[mask].sum()
    expected = torch.log1p(x * 1e4 / total)
    torch.testing.assert_close(found[:, mask], expected[:, mask])
    torch.testing.assert_close(found[:, ~mask], module.gene_mean[~mask].expand(N_CELLS, -1))
    torch.testing.assert_close(
        module.log_normalise(x, torch.ones(N_GENES, dtype=torch.bool)),
        module.log_normalise(x),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_empty_cells_and_huge_counts_are_finite(preset):
    module = moved(make_module(preset))
    batch = make_batch(3)
    batch["X"][0] = 0
    batch["X"][1] = 1e7
    module.train()
    _, _, found = module(batch)
    found.loss.backward()
    assert torch.isfinite(found.loss)
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name


def test_batches_shift_the_decoder_only():
    module = make_module(n_batch=2).eval()
    with torch.no_grad():
        module.batch_offset.copy_(torch.randn(2, N_GENES))
    theta = torch.softmax(torch.randn(4, N_TOPICS), dim=1)
    index = torch.tensor([[0], [1], [-1], [5]])
    with torch.no_grad():
        without = module.generative(theta)["logits"]
        found = module.generative(theta, index)["logits"] - without
    torch.testing.assert_close(found[0], module.batch_offset[0].detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], module.batch_offset[1].detach(), atol=1e-5, rtol=1e-4)
    assert float(found[2:].abs().max()) == 0.0  # unseen batches have no offset


def test_decoding_in_the_loss_changes_nothing():
    module, batch = make_module(), make_batch()
    assert module.decodes_in_loss()
    found = {}
    for decode in (True, False):
        module.zero_grad()
        torch.manual_seed(0)
        memory = None if decode else torch.full_like(batch["X"], float("nan"))
        _, _, output = module(
            batch, inference_kwargs={"memory": memory}, generative_kwargs={"decode": decode}
        )
        output.loss.backward()
        gradients = {name: p.grad.clone() for name, p in module.named_parameters()}
        found[decode] = {"loss": output.loss.detach(), **output.reconstruction_loss, **gradients}
    assert len(found[True]) > 5
    for name, expected in found[True].items():
        torch.testing.assert_close(found[False][name], expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_decoded_in_the_loss():
    assert not make_module("paper").decodes_in_loss()
    assert not make_module(n_batch=2).decodes_in_loss()
    partial = make_module()
    partial.set_present_genes(np.arange(N_GENES) > 0)
    assert not partial.decodes_in_loss()


def test_without_knowledge_there_is_no_guidance():
    module = make_module()
    batch = {"X": make_batch()["X"]}
    _, _, found = module(batch)
    assert set(found.extra_metrics) == {"ecr"}


def test_frozen_embeddings_need_no_transport():
    module = make_module()
    module.topic_embedding.requires_grad_(False)
    module.gene_embedding.requires_grad_(False)
    _, _, found = module(make_batch())
    assert float(found.extra_metrics["ecr"]) == 0.0


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_state_does_not_depend_on_the_data(preset):
    module = make_module(preset)
    before = {name: value.shape for name, value in module.state_dict().items()}
    moved(module)
    assert {name: value.shape for name, value in module.state_dict().items()} == before
    assert not any("log_scaling" in name or "present" in name for name in before)


def test_perturbed_cells_are_decoded_alone():
    # batch statistics would cancel a shift that all cells of a minibatch share
    module = moved(make_module("paper"))
    theta = torch.softmax(torch.randn(6, N_TOPICS), dim=1)
    with torch.no_grad():
        together = module.generative(theta)["logits"]
        alone = torch.cat([module.generative(row[None])["logits"] for row in theta])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_bad_guidance_name():
    with pytest.raises(ValueError, match="geometry"):
        SCE2TMModule(20, 4, guidance="none")
