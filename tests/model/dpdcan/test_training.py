"""The step does what it says: brute force beside it, in every mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sczoo.errors import PrivacyError
from sczoo.model.dpdcan._centres import cluster_sums
from sczoo.model.dpdcan._losses import agreement, cluster_divergence, soft_assignments, zinb
from sczoo.model.dpdcan._module import DPDCANModule
from sczoo.model.dpdcan._run import CENTRE_ROUNDS
from sczoo.privacy import UnitGradients
from sczoo.privacy._projection import fit_projection, unit_weights


def module(architecture="published", n_clusters=0, standardised=False, phase=1):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = DPDCANModule(30, architecture, 6, 8, n_clusters, 0.2, 0.8, (0.4, 0.4, 0.2),
                            standardised)  # fmt: skip
    if architecture == "projected":
        rng = np.random.default_rng(0)
        components = np.linalg.qr(rng.standard_normal((30, 6)))[0]
        made.encoder.set_projection(rng.random(30) + 0.05, components)
        # leave the zero start, or the first layer would have no gradient
        with torch.no_grad():
            made.encoder.out.weight.normal_(generator=torch.Generator().manual_seed(1))
    made.phase = phase
    return made


class Masks:
    """The same masks for a cell whatever else is in the minibatch."""

    def __init__(self, shape):
        self.draws = np.random.default_rng(5).random(shape)
        self.rows = slice(None)

    def random(self, shape):
        return self.draws[:, self.rows]


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize(
    ("architecture", "n_clusters", "phase"),
    [("published", 0, 1), ("projected", 0, 1), ("published", 3, 2), ("projected", 3, 2)],
)
def test_clipped_sums_of_the_model_equal_a_loop(rows, architecture, n_clusters, phase):
    net = module(architecture, n_clusters, phase=phase)
    counts = torch.tensor(
        np.random.default_rng(1).poisson(2.0, (7, rows, 30)), dtype=torch.float32
    )
    masks = Masks((2, 7, rows, 30))
    engine = UnitGradients(net)
    with engine.record():
        loss = net.unit_loss(counts, masks)
    sums, norms = engine.clipped_sums(loss, 0.05)
    expected = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for unit in range(7):
        masks.rows = slice(unit, unit + 1)
        net.zero_grad()
        net.unit_loss(counts[unit : unit + 1], masks).sum().backward()
        grads = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
        norm = torch.sqrt(sum(g.double().square().sum() for g in grads.values()))
        assert norms["all"][unit] == pytest.approx(float(norm), rel=1e-4)
        for name, grad in grads.items():
            expected[name] += grad * min(1.0, 0.05 / float(norm))
    for name, value in expected.items():
        largest = float(value.abs().max())
        assert float((sums[name] - value).abs().max()) <= 1e-5 * max(largest, 1e-3), name
    # and no cell depends on another
    masks.rows = slice(None)
    counts.requires_grad_()
    with engine.record():
        loss = net.unit_loss(counts, masks)
    engine.verify(loss, counts)


def test_the_published_step_clips_whole_gradients():
    """Each cell's gradient with the whole minibatch's contrastive term in it, by brute force."""
    net = module(standardised=True)
    counts = torch.tensor(np.random.default_rng(1).poisson(2.0, (6, 30)), dtype=torch.float32)
    draws = torch.tensor(np.random.default_rng(2).random((2, 6, 30)), dtype=torch.float32)

    def contrast():
        x = net.prepare(counts)
        one, other = (net.encoder(x * (d >= 0.2)) for d in draws)
        return -0.2 * torch.cosine_similarity(one, other, dim=0).mean()

    def cells(rows):
        z = net.encoder(net.prepare(counts[rows]))
        return 0.8 * net.reconstruction(counts[rows], z)

    parameters = dict(net.named_parameters())
    found = torch.autograd.grad(contrast(), list(parameters.values()), allow_unused=True)
    shared = {n: g for n, g in zip(parameters, found, strict=True) if g is not None}
    engine = UnitGradients(net)
    with engine.record():
        loss = cells(slice(None))
    sums, norms = engine.clipped_sums(loss, 0.1, shared)
    expected = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for row in range(6):
        net.zero_grad()
        (cells(slice(row, row + 1)).sum() + contrast()).backward()
        norm = torch.sqrt(sum(p.grad.double().square().sum() for p in parameters.values()))
        assert norms["all"][row] == pytest.approx(float(norm), rel=1e-4)
        for name, parameter in parameters.items():
            expected[name] += parameter.grad * min(1.0, 0.1 / float(norm))
    for name, value in expected.items():
        assert float((sums[name] - value).abs().max()) <= 1e-5 * float(value.abs().max()), name


def test_losses_by_hand():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert agreement(one, other).item() == pytest.approx(1.0)
    assert agreement(one, 3 * one).item() == pytest.approx(0.0, abs=1e-6)
    q = soft_assignments(torch.tensor([[0.0, 1.0]]))
    np.testing.assert_allclose(q, [[2 / 3, 1 / 3]], rtol=1e-6)
    p = np.array([0.8, 0.2])
    expected = (p * np.log(p / (np.array([2 / 3, 1 / 3]) + 1e-6))).sum()
    assert cluster_divergence(q).item() == pytest.approx(expected, rel=1e-5)
    # zero-inflated negative binomial by its definition
    from scipy.stats import nbinom

    mean, size, logit = 3.0, 2.0, -1.0
    zero = 1 / (1 + np.exp(-logit))
    counts = np.array([0.0, 1.0, 5.0])
    mass = (1 - zero) * nbinom.pmf(counts, size, size / (size + mean)) + zero * (counts == 0)
    tensor = lambda v: torch.full((1, 3), v)
    found = zinb(torch.tensor(counts[None]).float(), tensor(mean), tensor(size), tensor(logit))
    assert found.item() == pytest.approx(-np.log(mass).mean(), rel=1e-4)


def test_without_noise_the_projection_is_that_of_the_residuals(known_noise):
    rng = np.random.default_rng(0)
    counts = rng.poisson(2.0, (80, 30)).astype(np.float32)
    found = fit_projection(
        lambda: iter([counts[:50], counts[50:]]), unit_weights(None, 80), 80, 4,
        profile_noise=0.0, moment_noise=0.0, source=known_noise(),
    )  # fmt: skip
    x = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(found.profile, x.mean(0), rtol=1e-4)
    residual = x - x.mean(0)
    residual /= np.linalg.norm(residual, axis=1, keepdims=True)
    _, _, vt = np.linalg.svd(residual, full_matrices=False)
    np.testing.assert_allclose(np.abs(np.diag(vt[:4] @ found.components)), 1.0, atol=1e-4)


def test_one_unit_changes_each_release_by_at_most_one(known_noise):
    """Neighbours with the same noise: the noisy sums differ by the unit alone."""
    from sczoo.privacy import _projection

    rng = np.random.default_rng(0)
    counts = rng.poisson(2.0, (60, 30)).astype(np.float32)
    extreme = np.zeros((1, 30), dtype=np.float32)
    extreme[0, 3] = 1e6
    unit = lambda x: np.asarray(_projection.unit_profiles(x), dtype=np.float64)
    change = unit(np.concatenate([counts, extreme])).sum(0) - unit(counts).sum(0)
    assert np.linalg.norm(change) <= 1.0
    # second moments of residuals from a profile that was released before
    profile = unit(counts).mean(0)
    residual = _projection._to_unit(unit(extreme) - profile)
    assert np.linalg.norm(residual.T @ residual) <= 1.0
    # a donor with many such cells counts once
    donors = np.array([0] * 59 + [1])
    weights = _projection.unit_weights(donors, 60)
    assert weights[:59].sum() == pytest.approx(1.0)
    many = (unit(np.repeat(extreme, 59, 0)) * weights[:59, None]).sum(0)
    assert np.linalg.norm(many) <= 1.0


@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_no_value_of_a_cell_breaks_the_sums(value, kind, known_noise):
    """A sum that is no number would tell everybody that the cell took part."""
    from sczoo.privacy import _projection

    rng = np.random.default_rng(0)
    counts = rng.poisson(2.0, (60, 30)).astype(np.float32)
    counts[7, 3:5] = value
    unit = _projection.unit_profiles(kind(counts))
    unit = unit.toarray() if sparse.issparse(unit) else unit
    assert np.isfinite(unit).all()
    assert (np.linalg.norm(unit, axis=1) <= 1).all()
    found = fit_projection(
        lambda: iter([kind(counts)]), unit_weights(None, 60), 60, 4,
        profile_noise=0.0, moment_noise=0.0, source=known_noise(),
    )  # fmt: skip
    assert np.isfinite(found.profile).all()
    assert np.isfinite(found.components).all()
    sums = cluster_sums(counts, np.ones(60), np.eye(3, 30))
    assert np.isfinite(sums).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
@pytest.mark.parametrize("scale", [1.0, 1e-26, 3e-26])
def test_no_cell_is_longer_than_one_in_any_number_format(dtype, scale):
    """Squares of small numbers lose their digits in 32 bits, and all numbers do in 16."""
    from sczoo.privacy import _projection

    counts = np.random.default_rng(0).poisson(0.5, (400, 300)) * scale
    with np.errstate(all="ignore"):
        unit = _projection.unit_profiles(counts.astype(dtype))
    assert np.linalg.norm(unit.astype(np.float64), axis=1).max() <= 1.0


def test_the_projection_gets_the_noise_that_is_accounted(fit, monkeypatch):
    """Most of the budget: both releases of a real run against the exact sums of its cells."""
    from scipy import stats

    from sczoo.model.dpdcan import _planning
    from sczoo.privacy import _projection

    calls, moments = [], []
    original, eigenvectors = _projection.fit_projection, _projection.leading_eigenvectors

    def spy(blocks, weights, n_units, n_components, **options):
        found = original(blocks, weights, n_units, n_components, **options)
        calls.append((np.concatenate([b.toarray() for b in blocks()]), n_units, options, found))
        return found

    def keep(matrix, n):
        moments.append(matrix.copy())
        return eigenvectors(matrix, n)

    monkeypatch.setattr(_planning, "fit_projection", spy)
    monkeypatch.setattr(_projection, "leading_eigenvectors", keep)
    run = {r.what: r for r in fit(target_epsilon=8.0)._ledger.releases}
    ((counts, n_units, options, found),) = calls
    assert options["profile_noise"] == run["mean profile"].noise_multiplier > 0.1
    assert options["moment_noise"] == run["second moments"].noise_multiplier > 0.1
    x = np.asarray(_projection.unit_profiles(counts), dtype=np.float64)
    chosen = np.flatnonzero(found.profile)
    profile = found.profile[chosen]
    residual = x[:, chosen] - profile
    residual /= np.linalg.norm(residual, axis=1, keepdims=True)
    noise = (moments[0] - residual.T @ residual) / options["moment_noise"]
    # off the diagonal the variance is one half
    values = np.concatenate([np.diag(noise), np.sqrt(2) * noise[np.triu_indices(len(noise), 1)]])
    low, high = stats.chi2.ppf([1e-7, 1 - 1e-7], len(values))
    assert low < (values**2).sum() < high
    # genes are chosen for high noisy means, so of the profile a few numbers are pushed upwards
    values = (profile * n_units - x.sum(0)[chosen]) / options["profile_noise"]
    low, high = stats.chi2.ppf([1e-7, 1 - 1e-7], len(values))
    assert low < (values**2).sum() < high * 1.5


def test_without_noise_a_seed_repeats_the_run(fit):
    one, other = fit(noise_multiplier=0.0), fit(noise_multiplier=0.0)
    for name, value in one.module.state_dict().items():
        assert torch.equal(value, other.module.state_dict()[name]), name


def test_public_cells_give_the_projection_for_free(fit, cells):
    from sczoo.testing._cells import example_cells

    public = example_cells(150, seed=9)
    model = fit(target_epsilon=1.0, mode="frozen-decoder", train={"public_adata": public})
    assert {r.what for r in model._ledger.releases} == {"gradients"}
    assert model.epsilon <= 1.0
    again = fit(target_epsilon=1.0, mode="frozen-decoder", train={"public_adata": public})
    # the decoder is that of the public cells: no private cell and no noise has touched it
    for name, value in model.module.decoder.state_dict().items():
        assert torch.equal(value, again.module.decoder.state_dict()[name]), name


@pytest.mark.parametrize(
    ("mode", "arguments"),
    [
        ("dp", {}),
        ("dp", {"donor_key": "donor", "train": {"batch_size": 6}}),
        ("dp", {"n_clusters": 3}),
        ("frozen-decoder", {}),
        ("split", {}),
    ],
)
def test_the_noise_of_a_real_step_is_what_is_accounted(fit, monkeypatch, mode, arguments):
    """Half the noise, or none, or on part of the network, or no clipping, would show here."""
    from scipy import stats

    from sczoo.model.dpdcan._trainingplan import DPDCANTrainingPlan

    drawn: dict[str, list[np.ndarray]] = {}
    runs, trained = [], set()
    original = DPDCANTrainingPlan._release

    def spy(self, sums):
        before = {name: value.clone() for name, value in sums.items()}
        extra = self.module.centre_loss()
        original(self, sums)
        named = dict(self.module.named_parameters())
        runs.append(self.run)
        trained.update(name for name, value in named.items() if value.requires_grad)
        for group, bound in self.run.max_grad_norm.items():
            own = [v.double().square().sum() for n, v in before.items() if self._group(n) == group]
            # no more than every unit clipped; without clipping it is a thousand times more
            assert float(sum(own)) ** 0.5 <= self.run.n_units * bound * (1 + 1e-6)
        for name, value in before.items():
            if name == "centres.centres" and extra is not None:
                continue  # a gradient that sees no cell is added
            group = self._group(name)
            scale = self.run.group_noise[group] * self.run.max_grad_norm[group]
            noise = named[name].grad * self.run.expected_units - value
            drawn.setdefault(name, []).append((noise / scale).numpy().ravel())

    monkeypatch.setattr(DPDCANTrainingPlan, "_release", spy)
    arguments = dict(arguments)
    train = {"max_epochs": 3} | arguments.pop("train", {})
    arguments |= {"target_epsilon": 4.0, "architecture": "published", "max_grad_norm": 1e-4}
    fit(mode=mode, train=train, **arguments)
    run = runs[0]
    assert run.noise["gradients"] > 0.1
    assert set(drawn) | {"centres.centres"} >= trained
    for name, parts in drawn.items():
        values = np.concatenate(parts).astype(np.float64)
        low, high = stats.chi2.ppf([1e-7, 1 - 1e-7], len(values))
        assert low < (values**2).sum() < high, name
    if mode == "frozen-decoder":
        assert not any(name.startswith("decoder") for name in drawn)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100))
def test_one_unit_changes_the_cluster_sums_by_at_most_the_root_of_two(seed, scale):
    rng = np.random.default_rng(seed)
    latent, centres = scale * rng.standard_normal((30, 4)), rng.standard_normal((3, 4))
    whole = cluster_sums(latent, np.ones(30), centres)
    short = latent / np.maximum(np.linalg.norm(latent, axis=1, keepdims=True), 1.0)
    nearest = np.linalg.norm(short[:, None] - centres, axis=2).argmin(1)
    for k in range(3):
        np.testing.assert_allclose(whole[k, :4], short[nearest == k].sum(0), atol=1e-9)
        assert whole[k, 4] == (nearest == k).sum()
    without = cluster_sums(latent[1:], np.ones(29), centres)
    assert np.linalg.norm(whole - without) <= np.sqrt(2) + 1e-9
    # a donor of 10 cells, wherever they lie
    weight = np.concatenate([np.full(10, 0.1), np.ones(20)])
    with_donor = cluster_sums(latent, weight, centres)
    without = cluster_sums(latent[10:], weight[10:], centres)
    assert np.linalg.norm(with_donor - without) <= np.sqrt(2) + 1e-9


def test_cluster_centres_are_paid_for(fit):
    releases = {r.what: r for r in fit(n_clusters=3, target_epsilon=2.0)._ledger.releases}
    assert releases["cluster sums"].count == CENTRE_ROUNDS
    assert releases["cluster sums"].sampling_rate == 1.0
    assert releases["cluster sums"].noise_multiplier > 0


# --- the audit of the training itself ---------------------------------------------------------


@pytest.mark.parametrize(
    ("n_canaries", "arguments"),
    [
        (2000, {"mode": "dp", "architecture": "published"}),
        (2000, {"mode": "split", "architecture": "published"}),
        (2000, {"mode": "frozen-decoder", "architecture": "published"}),
        (2000, {"mode": "dp", "architecture": "published", "donor_key": "donor"}),
        (300, {"mode": "dp", "n_clusters": 3}),
        (300, {"mode": "split"}),
        (300, {"mode": "frozen-decoder"}),
    ],
)
def test_planted_gradients_do_not_contradict_sound_modes(fit, n_canaries, arguments):
    quiet = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    size = 6 if "donor_key" in arguments else 40
    model = fit(target_epsilon=3.0, train={"batch_size": size}, **arguments)
    found = model.audit_training(n_canaries, max_epochs=3, batch_size=size, **quiet)
    assert not found["contradicted"]
    assert found["lower_bound"] <= found["claimed"] <= 3.0
    assert found["canaries"] == n_canaries


def test_planted_gradients_find_missing_noise(fit, monkeypatch):
    from sczoo.privacy import NoiseSource

    model = fit(target_epsilon=1.0, architecture="published")
    original = NoiseSource.normal
    monkeypatch.setattr(NoiseSource, "normal", lambda self, *a: 1e-6 * original(self, *a))
    quiet = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    found = model.audit_training(2000, max_epochs=3, batch_size=40, **quiet)
    assert found["contradicted"]
    assert found["lower_bound"] > 2.0


def test_no_audit_without_a_claim(fit):
    with pytest.raises(PrivacyError, match="no claim"):
        fit(target_epsilon=float("inf")).audit_training()


def test_an_audit_reads_the_models_own_data(fit, cells):
    """A copy that was set up later carries the same identifier as the model's data."""
    from sczoo.model import DPDCAN

    model = fit(target_epsilon=3.0)
    DPDCAN.setup_anndata(model.adata[:50].copy())
    quiet = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    found = model.audit_training(100, max_epochs=1, batch_size=40, **quiet)
    assert not found["contradicted"]
