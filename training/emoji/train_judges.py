"""Train the two judges across the gap between renders and generated pictures.

Facts that shaped this: a judge trained on clean renders alone calls most good generated pictures
`neither` and misnames the rest. So each picture is also seen after autoencoder round trips with
noise of up to half a standard deviation added to its latents, then shifted, scaled and softened
like a generator's output. `neither` is learned from true garbage only (latents decoded from noise
or shuffled, two icons cut together, shuffled patches, blank paper) and at a modest share: what a
person can name should never fall into it.

The two judges share nothing: architecture, seed, latent noise, augmentation strength.

    python -m training.emoji.train_judges                 # both, on all pairs -> runs/judge-NAME
    python -m training.emoji.train_judges --folds 3       # cross-validation for the card -> runs/judges-folds.json
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save as to_file_bytes

from hfi import emoji
from hfi.emoji.judge import NEITHER, JudgeNetwork

from . import augment, common, data
from .train_unet import decode, encode_pictures, load_vae

ARCHITECTURE = {"annotator": "residual", "scorer": "tokens"}
#: latent noise (standard deviations) of the copies of each picture, strengths of the augmentation,
#: share of garbage in a batch, factor on the learning rate
RECIPE = {
    "annotator": {
        "latent_noise": (0.0, 0.1, 0.2, 0.3, 0.4),
        "shift": 4,
        "scale": 0.12,
        "turn": 0.06,
        "noise": 0.05,
        "colour": 0.06,
        "garbage": 0.07,
        "rate": 1.0,
    },
    "scorer": {
        "latent_noise": (0.0, 0.15, 0.25, 0.35, 0.5),
        "shift": 5,
        "scale": 0.16,
        "turn": 0.12,
        "noise": 0.04,
        "colour": 0.10,
        "garbage": 0.06,
        "rate": 0.5,
    },
}
FOLD_TIME = {"annotator": 1.0, "scorer": 2.0}  # of a fold's minutes: a network with attention learns half as fast here
STYLE_WEIGHT = 2.0  # the style is learned last: with 1.0 the object was right in 99 %, the style in 85 %
GARBAGE = 1500  # pictures of it


def to_bytes(x: torch.Tensor) -> torch.Tensor:
    return (x * 255).round().byte()


@torch.no_grad()
def round_trips(name: str, mean, std, vae) -> torch.Tensor:
    """uint8 (copies, N, 3, 64, 64): each picture decoded from its latents plus noise."""
    copies = []
    for number, sigma in enumerate(RECIPE[name]["latent_noise"]):
        g = common.generator(f"trips-{name}", number)
        z = (
            mean
            + std * torch.randn(mean.shape, generator=g)
            + sigma * torch.randn(mean.shape, generator=g) * torch.rand(len(mean), 1, 1, 1, generator=g)
        )
        copies.append(to_bytes(decode(vae, z)))
    return torch.stack(copies)


@torch.no_grad()
def garbage(name: str, mean, renders, vae) -> torch.Tensor:
    """uint8 (GARBAGE, 3, 64, 64): pictures that show no object."""
    g = common.generator(f"garbage-{name}", 0)
    n = GARBAGE // 6

    def some(source, count=n):
        return source[torch.randint(len(source), (count,), generator=g)]

    latents = [
        torch.randn(n, *mean.shape[1:], generator=g),  # noise
        some(mean).flatten(2)[:, :, torch.randperm(64, generator=g)].unflatten(2, (8, 8)),  # shuffled in space
        torch.stack([some(mean, n) for _ in range(4)]).mean(0) * 1.6,
    ]  # four pictures at once
    left = torch.arange(64) < 32
    halves = torch.where(left if name == "annotator" else left.unsqueeze(1), some(renders), some(renders))
    size = 8 if name == "annotator" else 16
    patches = some(renders).unfold(2, size, size).unfold(3, size, size)  # (n, 3, k, k, size, size)
    k = patches.shape[2]
    mixed = (
        patches.flatten(2, 3)[:, :, torch.randperm(k * k, generator=g)].unflatten(2, (k, k)).permute(0, 1, 2, 4, 3, 5).reshape(n, 3, 64, 64)
    )
    plain = torch.rand(n, 3, 1, 1, generator=g).expand(n, 3, 64, 64).clone()
    plain[: n // 3] = 1
    plain[n // 3 : 2 * n // 3] = (
        some(renders, 2 * n // 3 - n // 3) + 0.6 * torch.randn(2 * n // 3 - n // 3, 3, 64, 64, generator=g)
    ).clamp(0, 1)
    return torch.cat([to_bytes(decode(vae, torch.cat(latents))), to_bytes(torch.cat([halves, mixed, plain]))])


def train(name: str, args, material, labels, keep: torch.Tensor, minutes: float, tag: str) -> JudgeNetwork:
    """One judge on the pictures `keep` (long indices); material = (renders, trips, garbage) in bytes."""
    renders, trips, bad = material
    things, styles, objects, style_names = labels
    recipe = RECIPE[name]
    torch.manual_seed(11 if name == "annotator" else 23)
    network = JudgeNetwork(ARCHITECTURE[name], len(objects), len(style_names)).to(args.device, memory_format=torch.channels_last).train()
    args = argparse.Namespace(**{**vars(args), "minutes": minutes, "learning_rate": args.learning_rate * recipe["rate"]})
    run = common.Run(
        tag,
        args,
        {"model": network},
        torch.optim.AdamW(network.parameters(), lr=args.learning_rate, weight_decay=0.05, fused=True),
        warmup=50,
    )
    count = round(args.batch * recipe["garbage"])
    while run.going():
        g = common.generator(tag, run.step)
        torch.manual_seed(run.step)  # for dropout, so that a resumed run equals an uninterrupted one
        picks = keep[torch.randint(len(keep), (args.batch - count,), generator=g)]
        copy = torch.randint(-1, len(trips), picks.shape, generator=g)  # -1: the render itself
        x = torch.where((copy < 0).view(-1, 1, 1, 1), renders[picks], trips[copy.clamp_min(0), picks])
        x = torch.cat([x, bad[torch.randint(len(bad), (count,), generator=g)]]).float() / 255
        x = augment.move(x, g, recipe["shift"], recipe["scale"], recipe["turn"])
        x = augment.soften(x, g, recipe["noise"], recipe["colour"]).to(args.device)
        thing = torch.cat([things[picks], torch.full((count,), len(objects))]).to(args.device)
        with torch.autocast(args.device, torch.bfloat16):
            on_objects, on_styles = network(x.contiguous(memory_format=torch.channels_last))
        kinds = len(picks)
        on_object = F.cross_entropy(on_objects.float(), thing, label_smoothing=0.05)
        on_style = F.cross_entropy(on_styles[:kinds].float(), styles[picks].to(args.device), label_smoothing=0.05)
        loss = on_object + STYLE_WEIGHT * on_style
        right = (on_objects.argmax(1) == thing).float().mean()
        run.update(loss, right=float(right))
        if run.report_due(60):
            run.note()
    run.note()
    return network.eval()


def save(network: JudgeNetwork, folder: Path, architecture: str, objects: list[str], styles: list[str]) -> None:
    """Write config.json and model.safetensors in half precision, as hfi.emoji.judge reads them."""
    tensors = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    data.write_atomically(folder / "model.safetensors", to_file_bytes(tensors))
    config = {"architecture": architecture, "objects": objects, "styles": styles}
    data.write_atomically(folder / "config.json", json.dumps(config, indent=1).encode())


@torch.no_grad()
def verdicts(network, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Best object and style of uint8 (N, 3, 64, 64)."""
    device = network.object_head.weight.device
    parts = [network(part.float().to(device) / 255) for part in x.split(128)]
    return torch.cat([p[0].argmax(1) for p in parts]).cpu(), torch.cat([p[1].argmax(1) for p in parts]).cpu()


def prepare(device: str):
    """Everything the trainings share: renders, latents, labels."""
    pictures, pairs, _ = data.load_pictures()
    own = data.RUNS / "vae" / "model"
    vae = load_vae(device, own if own.exists() else emoji.folder() / "vae")  # the shipped one is that of the run that made it
    objects = [entry["name"] for entry in data.load_catalogue()["objects"]]
    styles = list(data.choice.STYLES)
    labels = (
        torch.tensor([objects.index(thing) for _, thing in pairs]),
        torch.tensor([styles.index(style) for style, _ in pairs]),
        objects,
        styles,
    )
    mean, std = (part.cpu() for part in encode_pictures(vae, torch.from_numpy(pictures)))
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), mean, std, labels, vae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    common.add_arguments(parser, minutes=8, batch=96, learning_rate=2e-3)
    parser.add_argument("--name", choices=list(ARCHITECTURE), help="one judge only")
    parser.add_argument("--folds", type=int, default=0, help="cross-validate over pictures instead")
    args = parser.parse_args()
    common.setup(args)
    minutes = args.minutes
    renders, mean, std, labels, vae = prepare(args.device)
    pool = {
        name: (renders, round_trips(name, mean, std, vae), garbage(name, mean, renders.float() / 255, vae))
        for name in ARCHITECTURE
        if args.name in (None, name)
    }
    everything = torch.arange(len(renders))
    if not args.folds:
        for name, material in pool.items():
            network = train(name, args, material, labels, everything, minutes, f"judge-{name}")
            save(network, args.runs / f"judge-{name}", ARCHITECTURE[name], [*labels[2], NEITHER], labels[3])
        return
    fold = torch.randperm(len(renders), generator=common.generator("folds", 0)) % args.folds
    wrong, result = {}, {"folds": args.folds, "minutes": minutes}
    for name, material in pool.items():
        right_object, right_style, neither = (torch.zeros(len(renders), dtype=torch.bool) for _ in range(3))
        for number in range(args.folds):
            tag = f"fold-{name}-{number}"
            network = train(name, args, material, labels, everything[fold != number], minutes * FOLD_TIME[name], tag)
            test = everything[fold == number]
            things, styles = verdicts(network, material[1][0][test])  # copy 0: a plain round trip
            right_object[test], right_style[test], neither[test] = (
                things == labels[0][test],
                styles == labels[1][test],
                things == len(labels[2]),
            )
        wrong[name] = ~right_object
        result[name] = {
            "object": float(right_object.float().mean()),
            "style": float(right_style.float().mean()),
            "neither": float(neither.float().mean()),
            "minutes": minutes * FOLD_TIME[name],
        }
    if len(wrong) == 2:
        result["error_correlation"] = float(torch.corrcoef(torch.stack([w.float() for w in wrong.values()]))[0, 1])
    data.write_atomically(data.RUNS / "judges-folds.json", json.dumps(result, indent=1).encode())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
