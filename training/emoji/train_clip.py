"""Train the CLIP pair: tokenizer, text encoder (conditions the UNet), vision tower (reward model).

Contrastive, with several positives: a caption such as "a rocket" is true of every rocket in the
batch, "weapon" of every weapon, so the targets are spread over all pictures that the caption
fits (`Caption.things`, `Caption.style`) instead of punishing true pairs. Pictures are shifted,
scaled and blurred, for the vision tower will look at generated pictures, which are softer.

Three batches of four hold a few objects in all their styles, so that only the style tells the
pictures of an object apart: among random pictures the object says nearly everything, and the
text encoder then says the style too quietly for the UNet to compose it with an object that it
has not seen in it. A quarter of each batch are icons that are no object of ours, for the style alone.

The tokenizer is a byte-level BPE with every single byte in its vocabulary: known words are one
token, a misspelt word falls into pieces that still reach the text encoder.
"""

import argparse
import json
import random

import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from . import augment, common, data
from .captions import Captions

WIDTH, LENGTH, MERGES = 192, 32, 1500


def build_tokenizer(corpus: list[str], folder) -> CLIPTokenizer:
    """Byte-level BPE over the captions' words, in CLIP's vocabulary order: bytes, bytes</w>, merges, specials.

    One that is there is kept: the trainer breaks ties differently from run to run, and a resumed
    text encoder needs its own tokenizer.
    """
    if (folder / "tokenizer.json").exists():
        return CLIPTokenizer.from_pretrained(folder)
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=512 + MERGES, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False)
    trained.train_from_iterator([text.lower() for text in corpus for _ in range(3)], trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    tokens = letters + [letter + "</w>" for letter in letters]
    tokens += [token for token in dict.fromkeys("".join(pair) for pair in merges) if token not in set(tokens)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """About 4 M parameters: text 4 x 192, vision ViT 4 x 192 with patch 8."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    shape = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_hidden_layers": 4, "projection_dim": 128, "hidden_act": "gelu"}
    config = CLIPConfig(
        text_config={**shape, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH, "num_attention_heads": 4},
        vision_config={**shape, "image_size": data.SIZE, "patch_size": 8, "num_attention_heads": 4},
        projection_dim=128,
    )
    return CLIPModel(config)


def image_processor() -> CLIPImageProcessorPil:
    """64x64 RGB to [-1, 1]. The PIL backend by name: the automatic choice depends on what is installed."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": data.SIZE}, crop_size={"height": data.SIZE, "width": data.SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def truth(captions, pairs) -> torch.Tensor:
    """(captions, pictures) bool: which caption is true of which picture."""
    return torch.tensor(
        [[(c.things is None or thing in c.things) and (c.style is None or c.style == style) for style, thing in pairs] for c in captions]
    )


def contrastive_loss(logits: torch.Tensor, match: torch.Tensor) -> torch.Tensor:
    """Cross-entropy both ways, targets uniform over the true pairs; logits (captions, pictures)."""
    match = match.float()
    by_text = -(match / match.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    by_image = -(match / match.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (by_text + by_image) / 2


def embed(model, tokens, pixels):
    """Unit text and image embeddings, (B, 128) each, float32."""
    text = model.get_text_features(**tokens).pooler_output.float()
    image = model.get_image_features(pixel_values=pixels).pooler_output.float()
    return F.normalize(text, dim=-1), F.normalize(image, dim=-1)


@torch.no_grad()
def accuracy(model, tokenizer, pictures, pairs) -> float:
    """Share of pictures whose own caption "a X in the style of Y" is nearest among all captions of `pairs`."""
    texts = [f"{thing} in the style of {style}" for style, thing in pairs]
    device = model.device
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").to(device)
    text, image = embed(model, tokens, (pictures.float().permute(0, 3, 1, 2) / 127.5 - 1).to(device))
    return float((image @ text.T).argmax(1).eq(torch.arange(len(pairs), device=device)).float().mean())


def pick(by_object: list[list[int]], batch: int, step: int) -> torch.Tensor:
    """Indices of one batch's pictures: a few objects in all styles, every fourth time any pictures."""
    rng = random.Random(10**6 + step)
    if step % 4 == 0:
        return torch.tensor(rng.sample([i for indices in by_object for i in indices], batch))
    picks = []
    for indices in rng.sample(by_object, len(by_object)):
        picks += indices
        if len(picks) >= batch:
            break
    return torch.tensor(picks[:batch])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    common.add_arguments(parser, minutes=35, batch=160, learning_rate=1e-3)
    common.add_exclusion(parser)
    args = parser.parse_args(argv)
    device = common.setup(args)
    catalogue = data.load_catalogue(args.exclude)
    pictures, pairs, seen = data.load_pictures(catalogue)
    known, known_pairs = torch.from_numpy(pictures[seen]), [p for p, s in zip(pairs, seen, strict=True) if s]
    held, held_pairs = torch.from_numpy(pictures[~seen]), [p for p, s in zip(pairs, seen, strict=True) if not s]
    by_object = {}
    for i, (_, thing) in enumerate(known_pairs):
        by_object.setdefault(thing, []).append(i)
    by_object = [by_object[thing] for thing in sorted(by_object)]
    extra, extra_kinds = data.load_extra(catalogue)
    extra = torch.from_numpy(extra)
    captions = Captions(catalogue)
    folder = args.runs / "clip" / "model"
    tokenizer = build_tokenizer(captions.corpus(), folder)
    torch.manual_seed(1)
    model = build(tokenizer).to(device)
    model.set_attn_implementation("eager")  # the CPU's fused bf16 attention has a slow backward
    run = common.Run(
        "clip",
        args,
        {"model": model},
        torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.98), weight_decay=0.05, fused=True),
    )
    while run.going():
        g = common.generator("clip", run.step)
        rng = random.Random(run.step)
        picks = pick(by_object, args.batch * 3 // 4, run.step)
        others = torch.randint(len(extra), (args.batch // 4,), generator=g)
        chosen, kinds = [known_pairs[i] for i in picks], [extra_kinds[i] for i in others]
        drawn = [captions.draw(*pair, rng, empty=False) for pair in chosen] + [captions.draw_kind(*pair, rng) for pair in kinds]
        chosen += kinds
        pixels = torch.cat([known[picks], extra[others]]).float().permute(0, 3, 1, 2) / 255
        pixels = augment.soften(augment.move(pixels, g), g) * 2 - 1
        tokens = tokenizer([c.text for c in drawn], padding="max_length", truncation=True, return_tensors="pt").to(device)
        with torch.autocast(device, torch.bfloat16):
            text, image = embed(model, tokens, pixels.to(device))
        logits = model.logit_scale.exp().clamp(max=100) * text @ image.T
        match = truth(drawn, chosen).to(device)
        right = match.gather(1, logits.argmax(1, keepdim=True)).float().mean()
        run.update(contrastive_loss(logits, match), right=float(right))
        if run.report_due(60):
            model.eval()
            run.note(seen=accuracy(model, tokenizer, known[::9], known_pairs[::9]), held_out=accuracy(model, tokenizer, held, held_pairs))
            model.train()
    model.eval()
    model.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    for name, shown, theirs in (("seen", known, known_pairs), ("held out", held, held_pairs)):
        print(f"nearest caption right, {name}: {accuracy(model, tokenizer, shown, theirs):.3f} among {len(shown)}")


if __name__ == "__main__":
    main()
