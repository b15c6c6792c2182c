from __future__ import annotations

import torch

from training.loop import optimizers
from training.muon import Muon, orthogonal


def test_singular_values_come_near_one_and_directions_stay() -> None:
    torch.manual_seed(0)
    for shape in ((2, 6, 20), (2, 20, 6)):
        x = torch.randn(shape)
        u, s, vh = torch.linalg.svd(orthogonal(x), full_matrices=False)
        assert s.min() > 0.5
        assert s.max() < 1.3
        a, _, bh = torch.linalg.svd(x, full_matrices=False)
        nearness = torch.einsum("nij,nij->n", u @ vh, a @ bh) / 6
        assert nearness.min() > 0.97


def test_a_convolution_learns_what_made_its_targets() -> None:
    torch.manual_seed(0)
    teacher, pupil = torch.nn.Conv2d(8, 8, 3, bias=False), torch.nn.Conv2d(8, 8, 3, bias=False)
    optimizer = Muon(list(pupil.parameters()), lr=0.02, weight_decay=0)
    losses = []
    for k in range(300):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - k / 300)
        x = torch.randn(16, 8, 6, 6)
        loss = (pupil(x) - teacher(x).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 300


def test_matrices_inside_are_muons_and_the_rest_is_adams() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv_in, self.inner, self.frozen = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
            self.frozen.requires_grad_(False)

    model = Model()
    adam, muon = optimizers(model, 1e-3)
    assert isinstance(muon, Muon)
    assert [id(p) for p in muon.param_groups[0]["params"]] == [id(model.inner.weight)]
    assert {id(p) for p in adam.param_groups[0]["params"]} == {id(model.conv_in.weight), id(model.conv_in.bias), id(model.inner.bias)}
