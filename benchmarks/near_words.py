"""How many of the words that draw the concept are among the first N that `generate.near_words` shows to people.

    .venv/bin/python benchmarks/near_words.py [--unlisted bomb --unlisted axe ...] [--counts 96 144 240]

Every word of the tokenizer and of the vocabulary's keywords is drawn twice; it counts where the annotator judge (a network:
simulated) sees a member in one of the two. On the demo's concept, or on one of which less is told: no prompt names an `--unlisted`
member, and words for the concept that are in no `--words` are not asked for. Ends with one line of JSON: {"words", "draw it",
"found": {order: {N: count}}, "members": {order: {member: count among the largest N}}}.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from hfi.config import load_config
from hfi.diffusion.model import load_model
from hfi.diffusion.prompts import asked_for, load_vocabulary, members
from hfi.diffusion.sampling import decode, sample_latents
from hfi.diffusion.text import encode_prompts, whole_words
from hfi.evaluation.drawing import name_verdicts
from hfi.generation.near import by_predictions, near_words, nearest_names
from hfi.perception.judges import load_judge
from hfi.progress import bar
from hfi.seeds import derive

ROOT = Path(__file__).resolve().parents[1]
TIMES, BATCH = 2, 64


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unlisted", action="append", metavar="MEMBER", help="no feedback prompt names it; default: the demo's")
    parser.add_argument("--word", action="append", metavar="WORD", dest="words", help="asked for; default: the demo's")
    parser.add_argument("--counts", type=int, nargs="+", default=[96, 144, 240, 336])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    options, config = parse(), load_config(ROOT / "recipes" / "demo.yaml")
    told = {"unlisted": tuple(options.unlisted or config.concept.unlisted), "words": tuple(options.words or config.concept.words)}
    concept = config.concept.model_copy(update=told)
    model, vocabulary = load_model(config.model, "cpu"), load_vocabulary(concept.vocabulary)
    asked, inside = asked_for(concept, vocabulary), set(members(concept, vocabulary))
    with bar() as progress:
        task = progress.add_task("Asking the model", total=None, note="")
        seen = lambda done, total: progress.update(task, completed=done, total=total)  # noqa: E731
        in_turn = near_words(model, concept, vocabulary, len(whole_words(model.tokenizer)) * 4, options.seed, BATCH, seen)
        words = sorted(in_turn)
        orders = {"in turn": in_turn, "by predictions": by_predictions(model, words, asked, options.seed, BATCH, seen)}
        orders["by the text encoder"] = nearest_names(model, asked, words, len(words))
        shows = verdicts(model, words, vocabulary, inside, config, progress, options.seed)
    found = {name: {n: sum(word in shows for word in order[:n]) for n in options.counts} for name, order in orders.items()}
    kinds = {name: dict(Counter(shows[word] for word in order[: max(options.counts)] if word in shows)) for name, order in orders.items()}
    for name, row in found.items():
        print(f"{name:20} " + "  ".join(f"{n}: {count}" for n, count in row.items()) + f"   of {len(shows)}; {kinds[name]}")
    print(json.dumps({"words": len(words), "draw it": len(shows), "found": found, "members": kinds}))


def verdicts(model, words: list[str], vocabulary, inside: set[str], config, progress, seed: int) -> dict[str, str]:
    """The words under which a member was seen, with the first one seen."""
    judge, c_0, shows = load_judge(config.label.simulated_judge, vocabulary, "cpu"), encode_prompts(model, [""]), {}
    sampling = config.evaluate.sampling
    task = progress.add_task("Drawing every word", total=TIMES * len(words), note="")
    for time in range(TIMES):
        for start in range(0, len(words), BATCH):
            part = words[start : start + BATCH]
            seeds = [derive(seed, "near words benchmark", time, start + place) for place in range(len(part))]
            pictures = decode(model, sample_latents(model, encode_prompts(model, part), c_0, seeds, **sampling))
            for word, verdict in zip(part, name_verdicts(judge, judge(pictures)), strict=True):
                if verdict.object in inside:
                    shows.setdefault(word, verdict.object)
            progress.update(task, advance=len(part))
    return shows


if __name__ == "__main__":
    main()
