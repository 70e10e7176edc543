"""What a private step costs beside the plain one, and beside opacus, in one process.

    python benchmarks/dpdcan_cost.py

The published network on 2,000 genes, all parameters trained, and the projected network with its
default loss and minibatch; a step is forward, backward, clip, noise and Adam. CPU seconds, one
thread, the median of repeated steps taken in turns.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from _measure import Results

from sczoo.model.dpdcan._module import DPDCANModule
from sczoo.privacy import NoiseSource, UnitGradients

GENES, REPEATS, CLIP, SIGMA = 2000, 11, 0.1, 3.0


def network(architecture="published"):
    torch.manual_seed(0)
    if architecture == "published":
        return DPDCANModule(GENES, "published", 32, 32, 0, 0.2, 1.0, (0.4, 0.4, 0.2), False)
    made = DPDCANModule(GENES, "projected", 10, 32, 0, 0.2, 0.8, (0.4, 0.4, 0.2), False)
    rng = np.random.default_rng(0)
    components = np.linalg.qr(rng.standard_normal((GENES, 10)))[0]
    made.encoder.set_projection(rng.random(GENES) + 0.01, components)
    return made


def plain(net, counts):
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        net.unit_loss(counts).mean().backward()
        optimizer.step()

    return step


def ours(net, counts):
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    engine, source = UnitGradients(net), NoiseSource()
    named = dict(net.named_parameters())

    def step():
        with engine.record():
            loss = net.unit_loss(counts)
        sums, _ = engine.clipped_sums(loss, CLIP)
        for name, value in sums.items():
            noise = torch.from_numpy(source.normal(tuple(value.shape)))
            named[name].grad = value.add_(noise, alpha=SIGMA * CLIP).div_(len(counts))
        optimizer.step()

    return step


class _Loss(torch.nn.Module):
    """opacus wraps a module whose forward it hooks: the whole loss, one number per cell."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, counts):
        return self.net.unit_loss(counts)


def opacus_hooks(net, counts):
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    wrapped = GradSampleModule(_Loss(net), loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.Adam(wrapped.parameters(), lr=1e-3),
        noise_multiplier=SIGMA,
        max_grad_norm=CLIP,
        expected_batch_size=len(counts),
        loss_reduction="sum",
    )

    def step():
        optimizer.zero_grad()
        wrapped(counts).sum().backward()
        optimizer.step()

    return step


def opacus_ghost(net, counts):
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping

    wrapped = GradSampleModuleFastGradientClipping(
        _Loss(net), loss_reduction="sum", max_grad_norm=CLIP, use_ghost_clipping=True
    )
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.Adam(wrapped.parameters(), lr=1e-3),
        noise_multiplier=SIGMA,
        max_grad_norm=CLIP,
        expected_batch_size=len(counts),
        loss_reduction="sum",
    )

    def step():
        optimizer.zero_grad()
        loss = wrapped(counts)
        loss.sum().backward(retain_graph=True)
        optimizer.zero_grad()
        factors = wrapped.get_clipping_coef()
        wrapped.disable_hooks()
        (factors * loss).sum().backward()
        wrapped.enable_hooks()
        optimizer.step()

    return step


def main():
    results = Results("dpdcan_cost", {"genes": GENES, "clip": CLIP, "noise": SIGMA})
    rng = np.random.default_rng(0)
    every = (plain, ours, opacus_ghost, opacus_hooks)
    for architecture, batch, makers in (
        ("published", 64, every),
        ("published", 256, every[:3]),
        ("published", 1024, every[:3]),
        ("projected", 1024, every[:2]),  # the default
    ):
        counts = torch.tensor(rng.poisson(0.3, (batch, 1, GENES)), dtype=torch.float32)
        steps = {maker.__name__: maker(network(architecture), counts) for maker in makers}
        seconds = {name: [] for name in steps}
        for repeat in range(REPEATS + 1):
            for name, step in steps.items():
                start = time.process_time()
                step()
                if repeat:  # the first call allocates
                    seconds[name].append(time.process_time() - start)
        base = np.median(seconds["plain"])
        for name, values in seconds.items():
            results.add(
                architecture=architecture,
                step=name,
                batch=batch,
                cpu_seconds=np.median(values),
                ratio_to_plain=np.median(values) / base,
            )


if __name__ == "__main__":
    main()
