"""Networks of the model-free methods: critics as one batched computation, actors, and the encoder of pictures."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wpt_bench.protocol import IMAGE_SIZE

FRAMES = 3
"""Frames of a stacked pixel observation (DrQ-v2, arXiv 2107.09645)."""
SHIFT = 3
"""Pixels of the random shift: DrQ-v2's 4 of 84, at 64."""
TRUNK = 50
"""Features between the encoder and a head (DrQ-v2)."""
TASK_EMBEDDING = 32
"""Numbers that stand for a task in a multi-task network, learned with it."""
LOG_STD = (-5.0, 2.0)
"""Range of a Gaussian actor's log standard deviation (Yarats and Kostrikov's SAC in PyTorch)."""


class EnsembleLinear(nn.Module):
    """``members`` linear layers side by side: ``(members, N, inputs)`` to ``(members, N, outputs)``.

    Given rows for fewer members, it is the first ones that compute.
    """

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5  # as nn.Linear begins
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Every member's layer on its own rows."""
        return torch.baddbmm(self.bias[: len(x)], x, self.weight[: len(x)])


class EnsembleNorm(nn.Module):
    """Every member's own LayerNorm over the last axis."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, 1, width))
        self.bias = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``, ``(members, N, width)``."""
        return torch.addcmul(self.bias[: len(x)], F.layer_norm(x, x.shape[-1:]), self.weight[: len(x)])


class Ensemble(nn.Module):
    """``members`` MLPs with ReLU and one output each, on the same rows: ``(N, inputs)`` to ``(members, N)``."""

    def __init__(self, members: int, inputs: int, hidden: int, layers: int, *, layer_norm: bool = False) -> None:
        super().__init__()
        self.members = members
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts.append(EnsembleLinear(members, inputs, hidden))
            if layer_norm:
                parts.append(EnsembleNorm(members, hidden))
            parts.append(nn.ReLU(inplace=True))
            inputs = hidden
        self.layers = nn.Sequential(*parts, EnsembleLinear(members, inputs, 1))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Outputs for the inputs joined along their last axis."""
        x = torch.cat(inputs, -1)
        return self.layers(x.expand(self.members, *x.shape)).squeeze(-1)

    def first(self, *inputs: Tensor) -> Tensor:
        """Outputs of the first member alone, ``(N,)``."""
        return self.layers(torch.cat(inputs, -1).unsqueeze(0)).view(-1)


def mlp(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """``layers`` hidden layers with ReLU, then a linear one."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(inputs, hidden), nn.ReLU(inplace=True)]
        inputs = hidden
    return nn.Sequential(*parts, nn.Linear(inputs, outputs))


class Encoder(nn.Module):
    """DrQ-v2's encoder: four 3x3 convolutions, the first of stride 2, of stacked frames."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        inputs, stride, size = 3 * FRAMES, 2, IMAGE_SIZE
        for _ in range(4):
            parts += [nn.Conv2d(inputs, channels, 3, stride), nn.ReLU()]
            inputs, stride, size = channels, 1, (size - 3) // stride + 1
        self.layers = nn.Sequential(*parts, nn.Flatten())
        self.outputs = channels * size * size
        for part in self.layers:
            if isinstance(part, nn.Conv2d):
                nn.init.orthogonal_(part.weight, nn.init.calculate_gain("relu"))
                assert part.bias is not None
                nn.init.zeros_(part.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 ``(N, 64, 64, 9)`` to features ``(N, outputs)``."""
        return self.layers(frames.movedim(-1, 1).float().div_(255).sub_(0.5))


class Eyes(nn.Module):
    """Observations as features: states as they are, frames encoded, with the learned embedding of the task if several.

    Attributes:
        outputs: number of features. pixels: whether heads need a ``neck``.
    """

    def __init__(self, *, width: int, pixels: bool, channels: int, tasks: int = 0) -> None:
        super().__init__()
        self.pixels = pixels
        self.encoder = Encoder(channels) if pixels else None
        self.embedding = nn.Embedding(tasks, TASK_EMBEDDING) if tasks else None
        self.outputs = (self.encoder.outputs if self.encoder else width) + (TASK_EMBEDDING if tasks else 0)

    def forward(self, observation: Tensor, task: Tensor) -> Tensor:
        """Features ``(N, outputs)`` of N observations, and of tasks int64 ``(N,)``."""
        feature = self.encoder(observation) if self.encoder else observation
        return feature if self.embedding is None else torch.cat([feature, self.embedding(task)], -1)

    def neck(self) -> tuple[nn.Module, int]:
        """What a head begins with, and the number of its outputs: few features of an encoder's many (DrQ-v2)."""
        if not self.pixels:
            return nn.Identity(), self.outputs
        return nn.Sequential(nn.Linear(self.outputs, TRUNK), nn.LayerNorm(TRUNK), nn.Tanh()), TRUNK


class Critic(nn.Module):
    """An ensemble of action values: features and actions, ``(N, ...)``, to values ``(members, N)``."""

    def __init__(
        self, eyes: Eyes, action_dim: int, members: int, hidden: int, layers: int, *, layer_norm: bool = False
    ) -> None:
        super().__init__()
        self.neck, inputs = eyes.neck()
        self.ensemble = Ensemble(members, inputs + action_dim, hidden, layers, layer_norm=layer_norm)

    def forward(self, feature: Tensor, action: Tensor) -> Tensor:
        """Every member's value of every row."""
        return self.ensemble(self.neck(feature), action)

    def first(self, feature: Tensor, action: Tensor) -> Tensor:
        """The first member's values alone, ``(N,)``."""
        return self.ensemble.first(self.neck(feature), action)


class Value(nn.Module):
    """State values: features ``(N, ...)`` to ``(N,)``."""

    def __init__(self, eyes: Eyes, hidden: int, layers: int) -> None:
        super().__init__()
        self.neck, inputs = eyes.neck()
        self.layers = mlp(inputs, hidden, layers, 1)

    def forward(self, feature: Tensor) -> Tensor:
        """Values of all rows."""
        return self.layers(self.neck(feature)).squeeze(-1)


class Deterministic(nn.Module):
    """An actor without noise: features to actions in [-1, 1], ``(N, action_dim)``."""

    def __init__(self, eyes: Eyes, hidden: int, layers: int, action_dim: int) -> None:
        super().__init__()
        self.neck, inputs = eyes.neck()
        self.layers = mlp(inputs, hidden, layers, action_dim)

    def forward(self, feature: Tensor) -> Tensor:
        """Actions of all rows."""
        return torch.tanh(self.layers(self.neck(feature)))


class SquashedGaussian(nn.Module):
    """SAC's actor: a normal distribution whose deviation depends on the observation, through tanh."""

    def __init__(self, eyes: Eyes, hidden: int, layers: int, action_dim: int) -> None:
        super().__init__()
        self.neck, inputs = eyes.neck()
        self.layers = mlp(inputs, hidden, layers, 2 * action_dim)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before tanh, ``(N, action_dim)`` each."""
        mean, log_std = self.layers(self.neck(feature)).chunk(2, -1)
        low, high = LOG_STD
        return mean, low + 0.5 * (high - low) * (torch.tanh(log_std) + 1)

    def sample(self, feature: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Actions ``(N, action_dim)`` that gradients pass through, and their log-densities ``(N,)``."""
        mean, log_std = self(feature)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        before = mean + log_std.exp() * noise
        normal = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
        # ln(1 - tanh(x)^2), in a form that does not underflow (SAC, arXiv 1801.01290, eq. 21)
        squash = 2 * (math.log(2) - before - F.softplus(-2 * before))
        return torch.tanh(before), (normal - squash).sum(-1)


class Gaussian(nn.Module):
    """IQL's and AWAC's actor: the mean through tanh, one deviation for all observations."""

    def __init__(self, eyes: Eyes, hidden: int, layers: int, action_dim: int) -> None:
        super().__init__()
        self.neck, inputs = eyes.neck()
        self.layers = mlp(inputs, hidden, layers, action_dim)
        self.log_std = nn.Parameter(torch.zeros(action_dim))

    def forward(self, feature: Tensor) -> Tensor:
        """Mean actions ``(N, action_dim)``."""
        return torch.tanh(self.layers(self.neck(feature)))

    def log_prob(self, feature: Tensor, action: Tensor, mask: Tensor) -> Tensor:
        """Log-densities ``(N,)`` of actions, over the dimensions where ``mask`` is 1."""
        log_std = self.log_std.clamp(*LOG_STD)
        normal = -0.5 * ((action - self(feature)) / log_std.exp()) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
        return (normal * mask).sum(-1)

    def sample(self, feature: Tensor, generator: torch.Generator) -> Tensor:
        """Actions ``(N, action_dim)`` in [-1, 1]."""
        mean = self(feature)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return (mean + self.log_std.clamp(*LOG_STD).exp() * noise).clamp(-1, 1)


def squared_error(value: Tensor, target: Tensor) -> Tensor:
    """Squared error of every member, ``(members, N)``, to one target, ``(N,)``: averaged over rows, summed."""
    return len(value) * F.mse_loss(value, target.expand_as(value))


def random_shift(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Every picture of ``(N, H, W, C)`` moved by up to ``SHIFT`` pixels along both axes; edges are repeated."""
    count, height, width, _ = frames.shape
    device = frames.device
    offset = torch.randint(-SHIFT, SHIFT + 1, (2, count, 1), generator=generator, device=device)
    rows = (torch.arange(height, device=device) + offset[0]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=device) + offset[1]).clamp_(0, width - 1)
    return frames[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]


class SlowCopy:
    """A copy of a module that follows it by an exponential average, all parameters as one vector."""

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        parameters = list(self.module.parameters())
        self._vector = nn.utils.parameters_to_vector(parameters)
        nn.utils.vector_to_parameters(self._vector, parameters)

    @torch.no_grad()
    def follow(self, module: nn.Module, rate: float) -> None:
        """Moves by the share ``rate`` towards the module's parameters."""
        self._vector.lerp_(nn.utils.parameters_to_vector(module.parameters()), rate)
