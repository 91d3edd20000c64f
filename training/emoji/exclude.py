"""What a control model never saw: the catalogue without some concepts and styles.

Pictures and captions are drawn from a catalogue, so what leaves the catalogue leaves the training: the members of a concept with
all their pictures and captions, a style with all of its own, the concept's words, and every keyword that names a member.
The phrases that name one are the concept's words, the members' names, and those of their keywords that no other object has
("gun", "archery"; not "tool" or "arrow"). An icon that is no object of ours goes too, if its name or a keyword says such a phrase.

Names of other objects stay as they are: "water pistol" and "fork and knife" hold a member's word, and are no weapons.
"""

import re
from collections.abc import Iterable


def says(text: str, phrases: Iterable[str]) -> bool:
    """True if `text` holds one of the phrases as whole words."""
    return any(re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text) for phrase in phrases)


def naming_phrases(catalogue: dict, concepts: Iterable[str]) -> list[str]:
    """What names a member of one of the concepts, in alphabetical order."""
    chosen = [catalogue["concepts"][name] for name in concepts]
    members = {name for concept in chosen for name in concept["members"]}
    theirs = {tag for entry in catalogue["objects"] if entry["name"] in members for tag in entry["tags"]}
    others = {tag for entry in catalogue["objects"] if entry["name"] not in members for tag in entry["tags"]}
    return sorted(members | {word for concept in chosen for word in concept["words"]} | (theirs - others))


def without(catalogue: dict, leave_out: Iterable[str]) -> dict:
    """The catalogue without the concepts and styles named; `phrases` are what no keyword says. Raises ValueError for an unknown name."""
    leave_out = set(leave_out)
    if not leave_out:
        return catalogue
    if unknown := leave_out - set(catalogue["concepts"]) - set(catalogue["styles"]):
        raise ValueError(f"{sorted(unknown)[0]!r} is neither a concept nor a style of the catalogue")
    concepts = [name for name in catalogue["concepts"] if name in leave_out]
    members = {name for concept in concepts for name in catalogue["concepts"][concept]["members"]}
    phrases = naming_phrases(catalogue, concepts)

    def clean(entry: dict) -> dict:
        kept = {key: [tag for tag in entry[key] if not says(tag, phrases)] for key in ("tags", "hints")}
        return {**entry, **kept, "styles": [style for style in entry["styles"] if style not in leave_out]}

    return {
        **catalogue,
        "styles": {style: entry for style, entry in catalogue["styles"].items() if style not in leave_out},
        "objects": [clean(entry) for entry in catalogue["objects"] if entry["name"] not in members],
        "held_out": [[style, thing] for style, thing in catalogue["held_out"] if style not in leave_out and thing not in members],
        "concepts": {
            name: {
                **concept,
                "words": [word for word in concept["words"] if not says(word, phrases)],
                **{key: [thing for thing in concept[key] if thing not in members] for key in ("members", "neighbours")},
            }
            for name, concept in catalogue["concepts"].items()
            if name not in leave_out
        },
        "phrases": phrases,
    }


def keeps_icon(catalogue: dict, style: str, name: str, tags: Iterable[str]) -> bool:
    """Does a catalogue that leaves something out keep this icon, which is no object of ours?"""
    words = [name.replace("-", " "), *tags]
    return style in catalogue["styles"] and not any(says(word, catalogue["phrases"]) for word in words)
