"""UnlearnDiffAtk: an adversarial prefix through the denoising loss (Zhang et al. 2023, arXiv 2310.11868).

    min over the prefix p of || eps - eps_theta(z_t, t, c([p, prompt])) ||^2, z_t from a target picture

p is a distribution over the vocabulary for each of its tokens. A step draws tokens from it, takes the gradient of the loss at their
one-hot rows (clipped to [-1, 1]), applies Adam, and projects each distribution back onto the simplex. The paper takes 50 timesteps
in turn, 40 steps at each, and stops at the first whose prompt the classifier sees the concept under. Ours: no judge takes part; of
the prompts after each timestep the one with the lowest loss on fixed noise is the final one, and the others are drawn once each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hfi.attacks.budget import spread, timesteps_of, tokens_of
from hfi.attacks.found import LOOKS, Found, Learner, Look, Run, Target, squared_error
from hfi.attacks.words import prompt_ids, reading, sequence, words
from hfi.config import UnlearnDiffAttack
from hfi.diffusion.model import Model, add_noise, predict_noise
from hfi.diffusion.text import embedding_table, encode_ids, encode_prompts
from hfi.seeds import generator


def attack(model: Model, target: Target, config: UnlearnDiffAttack, seed: int, run: Run) -> Found:
    """A prefix for each target's prompt; the targets learn side by side and none knows of the others."""
    size, count = len(target), tokens_of(config, target.kind)
    choices = words(model).to(model.device)
    table = embedding_table(model).detach().to(model.device)[choices].float()  # the encoder may wait on the CPU
    after = [prompt_ids(model, prompt) for prompt in target.prompts]
    vocabulary = model.encoders[0].table.shape[0]
    soft = torch.stack(
        [sequence(model, [*range(vocabulary + i * count, vocabulary + (i + 1) * count), *ids]) for i, ids in enumerate(after)]
    )
    timesteps, saved, look = timesteps_of(config, model.timesteps), run.saved(), Look(model, target, seed)
    total = config.iterations * len(timesteps)
    start = torch.full((size, count, len(choices)), 1 / len(choices), device=model.device)
    learner = Learner({"p": start}, torch.optim.Adam, config.learning_rate, config.weight_decay, saved)
    first = look(encode_prompts(model, target.prompts))
    # (prompts after each timestep, targets, tokens); their losses; a row is read only once it is written
    ids = saved["ids"] if saved else torch.zeros(len(timesteps), size, count, dtype=torch.long)
    losses = saved["losses"] if saved else torch.full((len(timesteps), size), torch.inf)
    for step in range(learner.done, total):
        turn, p = step // config.iterations, learner.values["p"]
        draws = [generator(seed, "unlearndiffatk", number, step) for number in target.numbers]
        eps = torch.stack([torch.randn(target.latents.shape[1:], generator=draw) for draw in draws]).to(model.device)
        drawn = torch.stack([torch.multinomial(p[i].cpu(), 1, generator=draw)[:, 0] for i, draw in enumerate(draws)]).to(model.device)
        t = torch.full((size,), timesteps[turn])
        rows = table[drawn].requires_grad_(True)
        c = encode_ids(model, soft, {"rows": rows.flatten(0, 1)})
        loss = squared_error(predict_noise(model, add_noise(model, target.latents.to(model.device), eps, t), t, c), eps, size)
        (gradient,) = torch.autograd.grad(loss.sum(), rows)
        learner.step([(gradient @ table.T).clamp(-1, 1)])
        p.copy_(onto_simplex(p))
        if (step + 1) % config.iterations == 0:
            ids[turn] = choices[p.argmax(-1)].cpu()
            losses[turn] = look(_encoded(model, ids[turn], after))
        run.step(step + 1, total, f"loss {loss.mean():.4f}", lambda: {**learner.tensors(), "ids": ids, "losses": losses})
    best, shown = losses.argmin(0), spread(config.tries, len(timesteps))
    kept = [(i, int(best[i]), True) for i in range(size)]
    kept += [(i, turn, False) for i in range(size) for turn in shown if turn != best[i]]
    found = torch.stack([ids[turn, i] for i, turn, _ in kept])
    return Found(
        c=_encoded(model, found, [after[i] for i, *_ in kept]),
        texts=tuple(reading(model, [*row, *after[i]]) for row, (i, *_) in zip(found.tolist(), kept, strict=True)),
        owners=tuple(target.numbers[i] for i, *_ in kept),
        final=tuple(final for *_, final in kept),
        queries={"unet": size * (total + LOOKS * (len(timesteps) + 1))},
        seconds=run.seconds,
        losses=tuple((float(first[i]), float(losses[best[i], i])) for i in range(size)),
    )


def onto_simplex(p: Tensor) -> Tensor:
    """The nearest point of the probability simplex, for each row (..., W): max(p - m, 0) with the m that makes it sum to 1.

    Exact, by sorting; the paper's bisection finds the same m.
    """
    falling = p.sort(-1, descending=True).values
    over = falling.cumsum(-1) - 1
    rank = torch.arange(1, p.shape[-1] + 1, device=p.device)
    last = (falling * rank > over).sum(-1, keepdim=True) - 1
    return (p - over.gather(-1, last) / (last + 1)).clamp(min=0)


@torch.no_grad()
def _encoded(model: Model, prefix: Tensor, after: list[list[int]]) -> Tensor:
    """Conditions of prefixes (n, K) with the tokens that follow each."""
    return encode_ids(model, torch.stack([sequence(model, [*row, *ids]) for row, ids in zip(prefix.tolist(), after, strict=True)]))
