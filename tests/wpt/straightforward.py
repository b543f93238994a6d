"""The fine-tuning update as one would write it first: the reference for the fast one's losses, gradients and time.

Everything happens step by step under automatic differentiation: projections and priors inside the loop over time,
distribution objects, two-hot targets written out, one optimizer of PyTorch's for each network. It reads weights and
noise from where the fast update has them, so that both compute the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal, kl_divergence
from world_model.plain import plain_decoder, plain_encoder

from wpt_bench.protocol import ACTION_PAD, DISCOUNT, episode_seed
from wpt_bench.world_model.functional import TWO_HOT_BINS, TWO_HOT_RANGE, UNIMIX, symexp, symlog
from wpt_bench.world_model.model import DYNAMICS_SCALE, FREE_NATS, REPRESENTATION_SCALE, WorldModel
from wpt_bench.world_model.rssm import RSSM
from wpt_bench.wpt.agent import WPTAgent

State = tuple[Tensor, Tensor]


class TwoHot:
    """A distribution over numbers: 255 bins in symlog space."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits - torch.logsumexp(logits, -1, keepdim=True)
        self.bins = torch.linspace(-TWO_HOT_RANGE, TWO_HOT_RANGE, TWO_HOT_BINS)

    def mean(self) -> Tensor:
        return symexp((self.logits.exp() * self.bins).sum(-1))

    def log_prob(self, value: Tensor) -> Tensor:
        value = symlog(value).clamp(-TWO_HOT_RANGE, TWO_HOT_RANGE)
        below = (self.bins <= value.unsqueeze(-1)).sum(-1).sub(1).clamp(0, TWO_HOT_BINS - 2)
        share = (value - self.bins[below]) / (self.bins[1] - self.bins[0])
        target = F.one_hot(below, TWO_HOT_BINS) * (1 - share).unsqueeze(-1)
        target = target + F.one_hot(below + 1, TWO_HOT_BINS) * share.unsqueeze(-1)
        return (target * self.logits).sum(-1)


def latent_distribution(rssm: RSSM, logits: Tensor) -> Independent:
    probs = F.softmax(logits.unflatten(-1, (rssm.size.stoch, rssm.size.classes)), -1)
    return Independent(Categorical(probs=(1 - UNIMIX) * probs + UNIMIX / rssm.size.classes), 1)


def sample(distribution: Independent, uniform: Tensor) -> Tensor:
    probs = distribution.base_dist.probs
    picked = (probs.cumsum(-1)[..., :-1] <= uniform.unsqueeze(-1)).sum(-1)
    hard = F.one_hot(picked, probs.shape[-1]).float()
    return (hard + probs - probs.detach()).flatten(-2)


def recur(rssm: RSSM, state: State, action: Tensor) -> Tensor:
    layer = rssm.recurrence
    deter, stoch = state
    core = layer.core_latent(torch.cat([layer.stoch_in(stoch), layer.deter_in(deter)], -1))
    core = layer.core_norm(core + layer.core_action(layer.action_in(action)) + layer.core_deter(deter))
    gates = layer.gates(core).unflatten(-1, (layer.blocks, 3, -1))
    reset, update, candidate = (gates[:, :, i].flatten(1) for i in range(3))
    update = torch.sigmoid(update - 1)
    return update * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - update) * deter


def prior(rssm: RSSM, deter: Tensor) -> Independent:
    return latent_distribution(rssm, rssm.prior_head(deter))


def world_model_loss(
    model: WorldModel, observation: Tensor, mask: Tensor | None, action: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The loss and the features ``(L, B, feature)`` of the posteriors."""
    rssm, (length, batch) = model.rssm, action.shape[:2]
    noise = rssm.noise((length, batch), generator)
    pixels = model.observation == "pixels"
    flat = observation.flatten(0, 1)
    embedding = plain_encoder(model.encoder, flat) if pixels else model.encoder(flat)
    embedding = embedding.unflatten(0, (length, batch))
    state: State = tuple(rssm.initial(batch))
    posteriors, priors, deters, stochs = [], [], [], []
    for step in range(length):
        led = action[step] if step else torch.zeros_like(action[0])
        deter = recur(rssm, state, led)
        priors.append(prior(rssm, deter))
        hidden = rssm.posterior_norm(rssm.posterior_deter(deter) + rssm.posterior_embedding(embedding[step]))
        posteriors.append(latent_distribution(rssm, rssm.posterior_head(hidden)))
        state = deter, sample(posteriors[-1], noise[step])
        deters.append(deter)
        stochs.append(state[1])
    deter, stoch = torch.stack(deters), torch.stack(stochs)
    latents = deter.flatten(0, 1), stoch.flatten(0, 1)
    decoded = plain_decoder(model.decoder, *latents) if pixels else model.decoder(*latents)
    decoded = decoded.unflatten(0, (length, batch))
    error = (decoded - observation) ** 2
    reconstruction = (error if mask is None else error * mask).flatten(2).sum(-1).mean()

    q, p = (
        torch.stack([distribution.base_dist.probs for distribution in distributions])
        for distributions in (posteriors, priors)
    )

    def kl(q: Tensor, p: Tensor) -> Tensor:
        return kl_divergence(*(Independent(Categorical(probs=probs), 1) for probs in (q, p)))

    dynamics, representation = kl(q.detach(), p), kl(q, p.detach())
    loss = reconstruction + DYNAMICS_SCALE * dynamics.clamp(min=FREE_NATS).mean()
    loss = loss + REPRESENTATION_SCALE * representation.clamp(min=FREE_NATS).mean()
    return loss, torch.cat([deter, stoch], -1)


class Straightforward:
    """``WPTAgent.update``, slowly: on the agent's own networks, with optimizers of its own."""

    def __init__(self, agent: WPTAgent) -> None:
        self.agent, settings = agent, agent.settings
        behaviour = agent.behaviour
        self.return_range = torch.zeros(())
        rate = settings.actor_critic_lr

        def adam(learning_rate: float, *networks: nn.Module) -> torch.optim.Adam:
            parameters = [parameter for network in networks for parameter in network.parameters()]
            return torch.optim.Adam(parameters, lr=learning_rate, eps=settings.adam_eps)

        self.optimizers = {
            "model": adam(settings.model_lr, agent.world_model, agent.reward),
            "actor": adam(rate, behaviour.actor),
            "critic": adam(rate, behaviour.critic),
        }

    def update(self) -> dict[str, float]:
        agent, settings = self.agent, self.agent.settings
        seed = episode_seed(agent.context.seed, "agent", 2 + agent.updates)
        generator = torch.Generator().manual_seed(seed)
        batch, _ = agent._sample(np.random.default_rng(seed))
        observation = agent.world_model.prepare(torch.from_numpy(batch.observation).transpose(0, 1))
        mask = None if batch.observation_mask is None else torch.from_numpy(batch.observation_mask)
        action = torch.from_numpy(batch.action).transpose(0, 1)
        reward = torch.from_numpy(batch.reward).transpose(0, 1)
        loss, feature = world_model_loss(agent.world_model, observation, mask, action, generator)
        reward_loss = -TwoHot(agent.reward(feature.detach()[1:])).log_prob(reward[1:]).mean()
        self.step("model", loss + reward_loss)

        start = feature.detach().flatten(0, 1)
        if settings.starts:
            start = start[torch.randperm(len(start), generator=generator)[: settings.starts]]
        losses = self.behaviour_losses(start, generator)
        agent.updates += 1
        return {"world_model_loss": loss.item(), "reward_loss": reward_loss.item()} | losses

    def behaviour_losses(self, start: Tensor, generator: torch.Generator) -> dict[str, float]:
        agent, settings = self.agent, self.agent.settings
        rssm, behaviour, mask = agent.world_model.rssm, agent.behaviour, agent._action_mask
        noise = rssm.noise((settings.horizon, len(start)), generator)
        draws = torch.randn((settings.horizon, len(start), ACTION_PAD), generator=generator)
        features, entropies = [start], []
        for step in range(settings.horizon):
            mean, std = behaviour.actor(features[-1].detach()).chunk(2, -1)
            policy = Normal(torch.tanh(mean), 0.9 * torch.sigmoid(std + 2) + 0.1)
            action = policy.mean + policy.stddev * draws[step]
            action = action + (action.clamp(-1, 1) - action).detach()
            entropies.append(-(policy.log_prob(action) * mask).sum(-1))
            state = features[-1].split([rssm.size.deter, rssm.size.stoch_flat], -1)
            deter = recur(rssm, state, action * mask)
            features.append(torch.cat([deter, sample(prior(rssm, deter), noise[step])], -1))
        feature = torch.stack(features)
        reward, value = TwoHot(agent.reward(feature)).mean(), TwoHot(behaviour.slow_critic(feature)).mean()
        returns, following = [], value[-1]
        for step in reversed(range(settings.horizon)):
            following = (1 - settings.lam) * value[step + 1] + settings.lam * following
            following = reward[step + 1] + DISCOUNT * following
            returns.insert(0, following)
        target = torch.stack(returns)
        weight = torch.cumprod(torch.full((settings.horizon, 1), DISCOUNT), 0) / DISCOUNT
        entropy = torch.stack(entropies)
        actor_loss = -(weight * (target / self.scale(target.detach()) + settings.entropy * entropy)).mean()
        self.step("actor", actor_loss)
        critic_loss = -(weight * TwoHot(behaviour.critic(feature[:-1].detach())).log_prob(target.detach())).mean()
        self.step("critic", critic_loss)
        for slow, fast in zip(behaviour.slow_critic.parameters(), behaviour.critic.parameters(), strict=True):
            slow.data = (1 - settings.slow_critic) * slow.data + settings.slow_critic * fast.data
        return {"actor_loss": actor_loss.item(), "critic_loss": critic_loss.item(), "entropy": entropy.mean().item()}

    def scale(self, returns: Tensor) -> Any:
        if not self.agent.settings.normalise_returns:
            return 1.0
        spread = torch.quantile(returns, 0.95) - torch.quantile(returns, 0.05)
        self.return_range = spread if self.return_range == 0 else 0.99 * self.return_range + 0.01 * spread
        return self.return_range.clamp(min=1.0)

    def step(self, name: str, loss: Tensor) -> None:
        optimizer, settings = self.optimizers[name], self.agent.settings
        parameters = optimizer.param_groups[0]["params"]
        # The networks of the loss that are not trained by it would gather gradients too.
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, settings.grad_clip)
        for parameter in parameters:
            parameter.data *= 1 - settings.weight_decay
        optimizer.step()
