"""The optimizer against torch's own, and its state."""

import torch

from wpt_bench.world_model.optimizer import Optimizer


def _problem() -> tuple[list[torch.nn.Parameter], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(3, 2, generator=generator))], torch.randn(3, 2, generator=generator)


def test_decay_clip_and_step_by_the_book() -> None:
    (weight,), target = _problem()
    (plain,), _ = _problem()
    ours = Optimizer([weight], learning_rate=0.1, eps=1e-5, grad_clip=0.5, weight_decay=0.01)
    adam = torch.optim.Adam([plain], lr=0.1, eps=1e-5)
    for _ in range(5):
        norm = ours.step(((weight - target) ** 2).sum())
        adam.zero_grad()
        ((plain - target) ** 2).sum().backward()
        assert plain.grad is not None
        plain_norm = plain.grad.norm()
        plain.grad.mul_(min(1.0, 0.5 / (plain_norm.item() + 1e-6)))
        plain.data.mul_(0.99)
        adam.step()
        assert torch.allclose(norm, plain_norm)
    assert torch.allclose(weight, plain, atol=1e-6)


def test_state_goes_on_where_it_stopped() -> None:
    (weight,), target = _problem()
    ours = Optimizer([weight], learning_rate=0.1, eps=1e-5, grad_clip=10.0, weight_decay=0.0)
    for _ in range(3):
        ours.step(((weight - target) ** 2).sum())
    copy = torch.nn.Parameter(weight.detach().clone())
    other = Optimizer([copy], learning_rate=0.1, eps=1e-5, grad_clip=10.0, weight_decay=0.0)
    other.load_state_dict({key: value.clone() for key, value in ours.state_dict().items()})
    for _ in range(3):
        ours.step(((weight - target) ** 2).sum())
        other.step(((copy - target) ** 2).sum())
    assert torch.equal(weight, copy)
