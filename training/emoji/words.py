"""The objects' names in other languages, for multilingual prompts: python -m training.emoji.words writes src/hfi/emoji/words.json.

They come from emojibase (MIT), which has them from Unicode CLDR, by the same emoji; an object whose emoji has since been given another
meaning (the pistol is a water pistol now) has none.
"""

import json

from . import choice
from .data import SHIPPED, fetch, read_member, slug, write_atomically

LANGUAGES = ("de", "es", "fr", "it", "pt")  # those of HUB (arXiv 2410.05664)

def main() -> None:
    tarball = fetch(*choice.EMOJIBASE)
    codes = {slug(entry["label"]): entry["hexcode"] for entry in read_member(tarball, "en/data.json")}
    catalogue = json.loads((SHIPPED / "catalogue.json").read_text(encoding="utf-8"))
    named = {item["name"]: codes.get(slug(item["name"])) for item in catalogue["objects"]}
    words = {}
    for language in LANGUAGES:
        labels = {entry["hexcode"]: entry["label"] for entry in read_member(tarball, f"{language}/data.json")}
        words[language] = {name: labels[code] for name, code in named.items() if code in labels}
    source = f"{'@'.join(choice.EMOJIBASE)} (MIT, Miles Johnson), from Unicode CLDR (Unicode License v3)"
    text = json.dumps({"source": source, "words": words}, indent=1, ensure_ascii=False) + "\n"
    write_atomically(SHIPPED / "words.json", text.encode())


if __name__ == "__main__":
    main()
