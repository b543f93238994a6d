"""Actor and critic, learned in imagination through frozen dynamics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wpt_bench.protocol import ACTION_PAD, DISCOUNT
from wpt_bench.world_model.functional import (
    TWO_HOT_BINS,
    clamp_straight_through,
    lambda_return,
    normal_log_prob,
)
from wpt_bench.world_model.losses import two_hot_loss, two_hot_mean
from wpt_bench.world_model.nets import head
from wpt_bench.world_model.optimizer import Optimizer
from wpt_bench.world_model.rssm import RSSM, Latent
from wpt_bench.world_model.tape import ChainTape
from wpt_bench.wpt.settings import Settings

RETURN_PERCENTILES = (0.05, 0.95)
RETURN_DECAY = 0.99
"""Returns are divided by a moving average of their 5-95% range (DreamerV3, eq. 7)."""
PIECE = 1024
"""Rows that heads take at a time: enough for a matrix product, few enough to stay in a core's cache."""


class Behaviour:
    """The actor maximises lambda-returns by backpropagation through the prior; the critic predicts them.

    Args:
        settings: of the fine-tuning.
        device: where networks live.
    """

    def __init__(self, settings: Settings, device: str) -> None:
        feature, units, layers = settings.world_model.feature, settings.units, settings.layers
        self.settings = settings
        self.actor = head(feature, units, layers, 2 * ACTION_PAD, scale=0.01).to(device)
        self.critic = head(feature, units, layers, TWO_HOT_BINS).to(device)
        self.slow_critic = head(feature, units, layers, TWO_HOT_BINS).to(device)
        self.slow_critic.load_state_dict(self.critic.state_dict())
        self.slow_critic.requires_grad_(False)
        self.return_range = torch.zeros((), device=device)  # until the first update
        common = {
            "learning_rate": settings.actor_critic_lr,
            "eps": settings.adam_eps,
            "grad_clip": settings.grad_clip,
            "weight_decay": settings.weight_decay,
        }
        self._actor_optimizer = Optimizer(self.actor.parameters(), **common)
        self._critic_optimizer = Optimizer(self.critic.parameters(), **common)

    def parts(self) -> dict[str, nn.Module | Optimizer]:
        """What a checkpoint holds of it, beside ``return_range``."""
        return {
            "actor": self.actor,
            "critic": self.critic,
            "slow_critic": self.slow_critic,
            "actor_optimizer": self._actor_optimizer,
            "critic_optimizer": self._critic_optimizer,
        }

    def update(
        self, rssm: RSSM, reward: nn.Sequential, start: Latent, mask: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """One gradient step of actor and critic, from imagined sequences that follow the actor.

        Dynamics and heads are stepped through on tapes, which leaves to autograd the arithmetic of distributions and
        returns. The actor sees latent states without passing gradients to them.

        Args:
            rssm: the dynamics. reward: the reward head.
            start: N latent states.
            mask: float ``(ACTION_PAD,)``, 1 at real dimensions of the action.
            generator: of the noise.

        Returns:
            Metrics, scalars.
        """
        settings, steps = self.settings, self.settings.horizon
        noise = rssm.noise((steps, len(start.deter)), generator)
        draws = torch.randn((*noise.shape[:2], ACTION_PAD), generator=generator, device=mask.device)
        weight = DISCOUNT ** torch.arange(steps, device=mask.device).unsqueeze(-1)

        dynamics, actor, raw = rssm.imagination(start, steps), rssm.head_tape(self.actor), []
        with torch.no_grad():
            for uniform, draw in zip(noise.unbind(), draws.unbind(), strict=True):
                raw.append(actor.forward(dynamics.feature))
                dynamics.forward(draw_action(raw[-1], draw)[0] * mask, uniform)
            feature = dynamics.features().flatten(0, 1)
        reached = feature[len(start.deter) :].split(PIECE)
        reward_tape, value_tape = (rssm.head_tape(net, frozen=True) for net in (reward, self.slow_critic))
        reward_logits = [reward_tape.forward(piece).requires_grad_() for piece in reached]
        value_logits = [value_tape.forward(piece).requires_grad_() for piece in reached]
        rewards, values = (
            torch.cat([two_hot_mean(logits) for logits in pieces]).view(steps, -1)
            for pieces in (reward_logits, value_logits)
        )
        returns = lambda_return(rewards, values, DISCOUNT, settings.lam)
        policy_raw = torch.stack(raw).requires_grad_()
        action, mean, std = draw_action(policy_raw, draws)
        entropy = -(normal_log_prob(action, mean, std) * mask).sum(-1)
        gain = (weight * returns / self._return_scale(returns.detach())).mean()
        bonus = settings.entropy * (weight * entropy).mean()

        of_logits = torch.autograd.grad(gain, [*reward_logits, *value_logits])
        with torch.no_grad():
            of_rewards, of_values = of_logits[: len(reached)], of_logits[len(reached) :]
            of_feature = torch.empty_like(feature[len(start.deter) :])
            pieces = zip(of_feature.split(PIECE), of_rewards, of_values, strict=True)
            for piece, of_reward, of_value in reversed(list(pieces)):
                torch.add(reward_tape.backward(of_reward), value_tape.backward(of_value), out=piece)
            of_action = dynamics.backward(of_feature.view(steps, len(start.deter), -1))
        (of_raw,) = torch.autograd.grad([action, bonus], policy_raw, [of_action * mask, None])
        for gradient in reversed(of_raw.neg().unbind()):
            actor.end(gradient)
        actor_norm = self._actor_optimizer.apply(actor.gradients())

        critic_loss = self._update_critic(
            feature[: -len(start.deter)], returns.detach(), weight, rssm.head_tape(self.critic)
        )
        return {
            "actor_loss": -(gain + bonus).detach(),
            "critic_loss": critic_loss,
            "entropy": entropy.detach().mean(),
            "imagined_reward": rewards.detach().mean(),
            "imagined_return": returns.detach().mean(),
            "actor_gradient": actor_norm,
        }

    def _update_critic(self, feature: Tensor, returns: Tensor, weight: Tensor, critic: ChainTape) -> Tensor:
        losses = []
        weight = weight.expand_as(returns).flatten() / returns.numel()
        pieces = (part.split(PIECE) for part in (feature, returns.flatten(), weight))
        for of_feature, target, share in zip(*pieces, strict=True):
            with torch.no_grad():
                logits = critic.forward(of_feature)
            losses.append((share * two_hot_loss(logits.requires_grad_(), target)).sum())
            critic.end(torch.autograd.grad(losses[-1], logits)[0])
        self._critic_optimizer.apply(critic.gradients())
        with torch.no_grad():
            share = self.settings.slow_critic
            torch._foreach_lerp_(list(self.slow_critic.parameters()), list(self.critic.parameters()), share)
        return torch.stack(losses).detach().sum()

    def _return_scale(self, returns: Tensor) -> Tensor | float:
        if not self.settings.normalise_returns:
            return 1.0
        low, high = torch.quantile(returns, torch.tensor(RETURN_PERCENTILES, device=returns.device))
        known = torch.where(self.return_range > 0, self.return_range, high - low)
        self.return_range = RETURN_DECAY * known + (1 - RETURN_DECAY) * (high - low)
        return self.return_range.clamp(min=1.0)


def policy(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the truncated normal policy from the actor's outputs, padding included."""
    mean, std = raw.chunk(2, -1)
    return torch.tanh(mean), 0.9 * torch.sigmoid(std + 2.0) + 0.1


def draw_action(raw: Tensor, draw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A sample of the policy from standard normal numbers, padded dimensions included; its mean and deviation.

    Args:
        raw: outputs of the actor, float ``(..., 2 * ACTION_PAD)``.
        draw: float ``(..., ACTION_PAD)``.

    Returns:
        Float ``(..., ACTION_PAD)`` each.
    """
    mean, std = policy(raw)
    return clamp_straight_through(mean + std * draw), mean, std
