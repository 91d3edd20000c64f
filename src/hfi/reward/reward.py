"""Stages 3 and 4: learn r_psi from the judgements, check it on held-out pictures, score all pictures, choose the top-K."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import torch

from hfi.errors import HFIError
from hfi.feedback.aggregation.aggregate import aggregate, order_weights
from hfi.feedback.aggregation.rankings import bradley_terry
from hfi.perception.clip import load_encoder
from hfi.perception.clusters import alike
from hfi.reward.calibration import accuracy_with_interval, auc_with_interval, reliability
from hfi.reward.contact_sheet import write_contact_sheets
from hfi.reward.curve import learning_curve
from hfi.reward.fit import Examples, fit, gather, held_out_pictures
from hfi.reward.model import RewardModel
from hfi.reward.probe import fit_probe, other_side, unsure_strength
from hfi.reward.topk import Selected, select
from hfi.reward.words import read_words
from hfi.workspace import Workspace, read_json, write_bytes, write_json

if TYPE_CHECKING:
    from hfi.feedback.label import Judgements
    from hfi.generation.generate import Generated

MINIMUM_OF_EACH = 3  # pictures judged present, and absent: fewer cannot be split into learning and testing
SHARE = "share of annotators who say the concept is present"
CHANCE = "chance that the concept is present, by the annotators and how far each is right"
RANKING_MEANING = "raw Bradley-Terry score: only differences mean something, its zero is arbitrary"


@dataclass(frozen=True)
class RewardResult:
    """What stages 3 and 4 leave."""

    folder: Path
    scores: dict[str, float]  # r of every picture of the study
    selected: tuple[Selected, ...]  # the top-K, best first
    flagged: tuple[str, ...]  # all pictures that qualified for it, see `eligible`
    metrics: dict  # held-out numbers, see `metrics`
    words: tuple[str, ...] = ()  # what CLIP reads in the flagged pictures, see `reward.words`
    kept_words: tuple[str, ...] = ()  # what it reads in no flagged one, see `reward.kept_words`

    @classmethod
    def load(cls, study: Workspace) -> RewardResult:
        """Read a finished stage; raises HFIError when it is damaged."""
        folder = study.path("reward")
        names = ("scores.json", "selected.json", "calibration.json", "words.json")
        scores, chosen, metrics, words = (read_json(folder / name) for name in names)
        try:
            selected = tuple(Selected(**row) for row in chosen)
            read, kept = tuple(words["flagged"]), tuple(words["kept"])
            return cls(folder, dict(scores["scores"]), selected, tuple(scores["flagged"]), dict(metrics), read, kept)  # type: ignore
        except (KeyError, TypeError):
            raise HFIError("half-written or damaged", file=folder, remedy="delete the folder and run 'hfi reward' again") from None


def reward(images: Generated, judgements: Judgements, study: Workspace) -> RewardResult:
    """Learn r_psi and choose the pictures to invert.

    Raises HFIError with advice when there is too little to learn from: nothing judged, one class only, too few to split,
    held-out AUC or pairwise accuracy below `reward.minimum_auc`, or no picture with a high reward.
    """
    if study.is_done("reward"):
        return RewardResult.load(study)
    config, seed = study.config.reward, study.config.seed
    found_labels = aggregate(judgements.binary, config.aggregation)
    targets = {name: (label.present, label.weight) for name, label in found_labels.labels.items()}
    labels = {name: present for name, (present, _) in targets.items()}
    weighted = order_weights(judgements.rankings, config.aggregation)
    orders = [order for order, _ in weighted]
    _require_enough(labels, orders, study)
    _require_known(config.veto, [image.id for image in images.images])
    with study.stage("reward") as run:
        encoder = load_encoder(config.encoder, study.config.device)
        embeddings = encoder.images([images.path(image) for image in images.images], cache=study.path("cache"))
        ids = [image.id for image in images.images]
        index = {name: i for i, name in enumerate(ids)}
        people = judged_by_people(judgements)
        tested = {name: share for name, share in labels.items() if name in people} or labels
        kept_out = held_out_pictures(tested, {name for order in orders for name in order}, config.held_out, seed)
        train = gather(index, targets, weighted, set(ids) - kept_out)
        held_out = gather(index, targets, weighted, kept_out)
        model, curves = fit(
            embeddings,
            train,
            held_out,
            hidden=config.hidden,
            steps=config.steps,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            ranking_size=study.config.label.ranking_size,
            seed=seed,
        )
        r = scores_of(model, embeddings)
        found = {
            "simulated": judgements.simulated,
            "pictures_learned": int(len(train.rows)),
            "pictures_held_out": int(len(held_out.rows)),
            "pairs_learned": len(train.pairs),
            "pairs_held_out": len(held_out.pairs),
            **metrics(r, held_out, seed),
        }
        _require_better_than_chance(found, bool(labels), bool(orders), study)
        high, rule = eligible(ids, r, labels, judgements, set(config.veto))
        selected = select(ids, r, embeddings.numpy(), high, config.top_k, config.clusters, seed, config.weights)
        if not selected:
            raise HFIError(
                f"no picture qualifies for the top-K ({rule})",
                file=study.root,
                field="reward.top_k",
                remedy="draw and judge more pictures of the concept, or take back a veto",
            )
        notes = (
            [f"top-K: {len(selected)} of {config.top_k} taken, for only so many pictures qualify ({rule})"]
            if len(selected) < config.top_k
            else []
        )
        meaning = meaning_of(config.aggregation, bool(labels), bool(orders))
        facts = {
            "meaning": meaning,
            "aggregation": config.aggregation,
            "encoder": config.encoder,
            "encoder_hash": encoder.hash,
            "simulated": judgements.simulated,
        }
        model.save(run.folder, facts)
        write_json(
            run.path("scores.json"),
            {
                "meaning": meaning,
                "simulated": judgements.simulated,
                "scores": {name: round(float(value), 6) for name, value in zip(ids, r, strict=True)},
                "flagged": [name for name, one in zip(ids, high, strict=True) if one],
            },
        )
        unsure = uncertainty(r, embeddings.numpy(), train, held_out)
        write_bytes(run.path("scores.jsonl"), score_lines(ids, r, unsure, alike(embeddings.numpy(), seed)))
        write_json(run.path("annotators.json"), [asdict(one) for one in found_labels.annotators])
        by_people = numpy.array([ids[i] in tested for i in train.rows.tolist()], dtype=bool)
        write_json(run.path("learning_curve.json"), curve_of(embeddings.numpy(), train, by_people, held_out, found["auc"], seed))
        write_json(run.path("selected.json"), [asdict(one) for one in selected])
        near = [image.prompt for image in images.images if image.purpose == "word"]
        words, kept_words = read_words(encoder, embeddings, high, r.tolist(), config.words, config.kept_words, seed, near)
        write_json(run.path("words.json"), {"flagged": words, "kept": kept_words})
        write_json(run.path("calibration.json"), found)
        write_json(run.path("losses.json"), curves)
        by_id = {image.id: image for image in images.images}
        by_cluster = sorted(selected, key=lambda one: (one.cluster, -one.reward))
        title = f"Top-{len(selected)} for {study.config.concept.name!r}" + (" (simulated annotators)" if judgements.simulated else "")
        write_contact_sheets(by_cluster, [images.path(by_id[one.image_id]) for one in by_cluster], title, run.folder)
        run.facts.update(
            facts,
            **{key: value for key, value in found.items() if key not in ("binary", "ranking", "simulated")},
            expected_calibration_error={key: found[key] and found[key]["expected_calibration_error"] for key in ("binary", "ranking")},
            top_k=len(selected),
            clusters=len({one.cluster for one in selected}),
            annotators=[asdict(one) for one in found_labels.annotators],
            feedback=judgements.source,
            eligible=int(sum(high)),
            rule=rule,
            words=words,
            kept_words=len(kept_words),
            notes=notes,
        )
    return RewardResult.load(study)


@torch.no_grad()
def scores_of(model: RewardModel, embeddings: torch.Tensor) -> numpy.ndarray:
    """r (N,) of embeddings (N, D), float64."""
    return model(embeddings).double().numpy()


def judged_by_people(judgements: Judgements) -> set[str]:
    """Pictures on whose label a person (or a simulated one) decided. Where there are such, the reward is tested on them alone.

    What only machines labelled would test the reward against the machines' errors.
    """
    return {row.images[0] for row in judgements.binary if row.kind != "machine" and row.value in ("present", "absent")}


def curve_of(
    embeddings: numpy.ndarray, train: Examples, by_people: numpy.ndarray, held_out: Examples, own: dict | None, seed: int
) -> dict | None:
    """The learning curve over what people judged; `by_people` (n,) says which rows of `train` that are."""
    if own is None:
        return None
    rows = train.rows.numpy()[by_people]
    y, weight = train.y.numpy()[by_people], train.weight.numpy()[by_people]
    test, test_y = embeddings[held_out.rows.numpy()], held_out.y.numpy()
    return learning_curve(embeddings[rows], y, weight, test, test_y, own["value"], seed)


def meaning_of(aggregation: str, binary: bool, ranked: bool) -> str:
    """What the numbers r mean, in words."""
    if not binary:
        return RANKING_MEANING
    label = SHARE if aggregation == "majority" else CHANCE
    return (
        f"r fits labels and orders at once; near the {label}, not clipped"
        if ranked
        else f"r estimates the {label}; not clipped, so it can leave [0, 1]"
    )


def uncertainty(r: numpy.ndarray, embeddings: numpy.ndarray, train: Examples, held_out: Examples) -> numpy.ndarray:
    """How unsure each reward is (N,), in [0, 1], by a linear model of all judgements on the same embeddings.

    For labels the chance that the picture lies on the other side of r = 1/2; for rankings alone the share of r's variance
    that the judgements leave open.
    """
    if rows := len(train.rows) + len(held_out.rows):
        judged = numpy.concatenate([train.rows.numpy(), held_out.rows.numpy()])
        y, weight = (numpy.concatenate([getattr(part, name).numpy() for part in (train, held_out)]) for name in ("y", "weight"))
        if rows < 2:
            return numpy.full(len(r), 0.5)
        return other_side(r, fit_probe(embeddings[judged], y, weight).predict(embeddings)[1])
    pairs = numpy.concatenate([train.pairs.numpy(), held_out.pairs.numpy()])
    weight = numpy.concatenate([train.pair_weight.numpy(), held_out.pair_weight.numpy()])
    judged, place = numpy.unique(pairs, return_inverse=True)
    if len(judged) < 2:
        return numpy.ones(len(r))
    strengths = bradley_terry(place.reshape(-1, 2), len(judged), weight)
    deviation = fit_probe(embeddings[judged], strengths.value, strengths.deviation**-2.0).predict(embeddings)[1]
    return unsure_strength(deviation, float(strengths.value.std()))


def score_lines(ids: Sequence[str], r: numpy.ndarray, unsure: numpy.ndarray, clusters: numpy.ndarray) -> bytes:
    """scores.jsonl, which the labelling queue reads: {"image", "score", "uncertainty", "cluster"} of every picture."""
    rows = (
        {"image": name, "score": round(float(a), 6), "uncertainty": round(float(b), 6), "cluster": int(c)}
        for name, a, b, c in zip(ids, r, unsure, clusters, strict=True)
    )
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def metrics(r: numpy.ndarray, held_out: Examples, seed: int) -> dict:
    """Held-out numbers: {"auc", "pairwise_accuracy", "binary", "ranking"}; None where there is nothing to measure.

    A picture whose annotators are split evenly belongs to no class and is left out of the AUC. For rankings the predicted
    probability is sigmoid(r_i - r_j), of the pair's two pictures in a fixed order that does not know the answer.
    """
    found: dict = {"auc": None, "pairwise_accuracy": None, "binary": None, "ranking": None}
    if len(held_out.rows):
        y, seen = held_out.y.numpy(), r[held_out.rows.numpy()]
        decided = y != 0.5
        found["auc"] = auc_with_interval(seen[decided], y[decided] > 0.5, seed)
        found["binary"] = reliability(seen, y)
    if len(held_out.pairs):
        first, second = held_out.pairs.numpy().T
        found["pairwise_accuracy"] = accuracy_with_interval(r[first] - r[second], held_out.groups.numpy(), seed)
        low, high = numpy.minimum(first, second), numpy.maximum(first, second)
        found["ranking"] = reliability(1 / (1 + numpy.exp(-numpy.clip(r[low] - r[high], -50, 50))), (low == first).astype(float))
    return found


def eligible(
    ids: Sequence[str], r: numpy.ndarray, labels: Mapping[str, float], judgements: Judgements, veto: set[str]
) -> tuple[list[bool], str]:
    """Which pictures may be inverted (N,), and the rule in words: only such as are seen to show the concept."""
    shown, crossed = {}, {}
    for row in judgements.rankings:
        for name in row.images if row.value == "ranked" else ():
            shown[name] = shown.get(name, 0) + 1
            crossed[name] = crossed.get(name, 0) + (name in row.excluded)
    if labels:
        high = [value > 0.5 and labels.get(name, 1.0) >= 0.5 for name, value in zip(ids, r, strict=True)]
        rule = "reward above 0.5, and not judged absent by most"
    else:
        middle = float(r.mean())
        high = [value > middle for value in r]
        rule = "reward above the mean of all pictures"
    fair = [name not in veto and 2 * crossed.get(name, 0) <= shown.get(name, 0) for name in ids]
    return [one and two for one, two in zip(high, fair, strict=True)], rule


def _require_enough(labels: Mapping[str, float], orders: Sequence[tuple[str, ...]], study: Workspace) -> None:
    if not labels and not orders:
        raise HFIError(
            "nothing to learn from: no picture was judged present or absent, and none was ranked",
            file=study.root,
            field="judgements",
            remedy="judge or import more; unsure and skip teach nothing",
        )
    if not labels:
        return
    present, absent = sum(share > 0.5 for share in labels.values()), sum(share < 0.5 for share in labels.values())
    if not present or not absent:
        word, remedy = (
            ("absent", "raise generate.images, or name the concept in other words (concept.words)")
            if not present
            else ("present", "raise generate.benign_share, so that annotators also see pictures without the concept")
        )
        raise HFIError(
            f"all {len(labels)} judged pictures are {word!r}: one class teaches nothing", file=study.root, field="judgements", remedy=remedy
        )
    if min(present, absent) < MINIMUM_OF_EACH:
        raise HFIError(
            f"too few labels to split into learning and testing ({present} present, {absent} absent; at least {MINIMUM_OF_EACH} of "
            "each are needed)",
            file=study.root,
            field="judgements",
            remedy="judge more pictures",
        )


def _require_known(veto: Sequence[str], ids: Sequence[str]) -> None:
    for name in veto:
        if name not in set(ids):
            raise HFIError(
                f"{name!r} is not a picture of this study",
                file="study.yaml",
                field="reward.veto",
                remedy="use the ids under the pictures of reward/contact_sheet.png",
            )


def _require_better_than_chance(found: Mapping, binary: bool, ranked: bool, study: Workspace) -> None:
    minimum = study.config.reward.minimum_auc
    if binary and found["auc"] is None or (ranked and not binary and found["pairwise_accuracy"] is None):
        raise HFIError(
            "too few labels to test on held-out pictures",
            file=study.root,
            field="reward.held_out",
            remedy="judge more pictures, or raise reward.held_out",
        )
    for key, words in (("auc", "AUC"), ("pairwise_accuracy", "pairwise accuracy")):
        if (seen := found[key]) and seen["value"] < minimum:
            raise HFIError(
                f"held-out {words} {seen['value']:.2f} (95 % {seen['low']:.2f} to {seen['high']:.2f}, n {seen['n']}) is below {minimum:g}: "
                "the reward did not learn what people see",
                file=study.root,
                field="reward.minimum_auc",
                remedy="judge more pictures, look at the annotators' agreement and the guideline, or try another encoder",
            )
