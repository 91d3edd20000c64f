"""What the embedded model knows: nine styles, 168 objects, three concepts.

Why these objects: the emojibase name exists in most of the nine sets, the groups of
emojibase are all there, and few of them look alike. Forty yellow faces or thirty clock
faces would cost training time and tell a judge nothing, so twelve clearly different
faces stand for all of them. The harms (`CONCEPTS`) come with their innocent neighbours
(a shield beside the dagger, milk beside the beer), for these show the damage first.
"""

#: npm packages, pinned. key = style name in captions; (npm name, version, artist, licence, look in plain words)
STYLES = {
    "twemoji": ("twemoji", "1.2.5", "Twitter", "CC-BY-4.0", "flat, bright colours, no outline"),
    "noto": ("noto", "1.2.9", "Google", "Apache-2.0", "soft shading and gradients"),
    "blob": ("noto-v1", "1.2.5", "Google", "Apache-2.0", "the older Google set: rounded, yellow gum-drop faces"),
    "fluent-3d": ("fluent-emoji", "1.2.7", "Microsoft", "MIT", "glossy plastic with highlights"),
    "fluent-flat": ("fluent-emoji-flat", "1.2.6", "Microsoft", "MIT", "flat shapes in a few warm tones"),
    "fluent-ink": ("fluent-emoji-high-contrast", "1.2.6", "Microsoft", "MIT", "bold black shapes on white"),
    "emojione": ("emojione", "1.2.3", "Emoji One", "CC-BY-4.0", "flat pastel colours"),
    "emojione-monotone": ("emojione-monotone", "1.2.1", "Emoji One", "CC-BY-4.0", "thin black line drawings and silhouettes"),
    "fxemoji": ("fxemoji", "1.2.2", "Mozilla", "Apache-2.0", "flat, muted colours, cut-paper look"),
}
EMOJIBASE = ("emojibase-data", "17.0.0")

#: CLDR names written as icon names. A name belongs here only after a look at its rendered row.
OBJECTS = """
grinning-face face-with-tears-of-joy winking-face smiling-face-with-heart-eyes smiling-face-with-sunglasses face-with-medical-mask
face-screaming-in-fear loudly-crying-face angry-face sleeping-face skull ghost alien pile-of-poo red-heart broken-heart collision
heart-on-fire thumbs-up victory-hand raised-fist flexed-biceps eyes santa-claus dog-face cat-face tiger-face horse-face cow-face
pig-face monkey-face elephant frog penguin rooster baby-chick snake turtle dolphin tropical-fish octopus snail honeybee spider rose
sunflower cherry-blossom palm-tree cactus four-leaf-clover maple-leaf mushroom grapes watermelon lemon banana pineapple red-apple
cherries strawberry bread hamburger pizza cooking sushi soft-ice-cream doughnut birthday-cake lollipop baby-bottle glass-of-milk
hot-beverage teacup-without-handle sake bottle-with-popping-cork wine-glass cocktail-glass tropical-drink beer-mug clinking-beer-mugs
clinking-glasses tumbler-glass fork-and-knife kitchen-knife volcano house castle bus fire-engine automobile bicycle anchor sailboat
airplane helicopter rocket alarm-clock hourglass-done crescent-moon sun star cloud rainbow umbrella snowflake fire droplet
jack-o-lantern christmas-tree fireworks sparkler firecracker balloon wrapped-gift trophy soccer-ball basketball game-die artist-palette
glasses t-shirt dress crown top-hat high-heeled-shoe lipstick ring gem-stone bell musical-note trumpet guitar violin mobile-phone
television camera magnifying-glass-tilted-left candle light-bulb open-book money-bag envelope package pencil scissors locked key hammer
hammer-and-pick dagger crossed-swords bomb bow-and-arrow axe pistol water-pistol shield wrench microscope syringe pill door toilet
warning no-entry right-arrow recycling-symbol cross-mark
""".split()  # noqa: SIM905

#: Names that differ from the CLDR name in one set (looked at, not guessed).
ALIASES = {
    "fxemoji": {
        "kitchen-knife": "hocho",
        "dagger": "daggerknife",
        "sake": "sakebottleandcup",
        "sparkler": "fireworksparkler",
        "pizza": "sliceofpizza",
        "winking-face": "winking",
        "smiling-face-with-heart-eyes": "hearteyes",
        "face-with-tears-of-joy": "grintears",
        "grinning-face": "grin",
        "loudly-crying-face": "loudlycrying",
        "face-with-medical-mask": "medicalmask",
        "face-screaming-in-fear": "screamfear",
        "angry-face": "angry",
        "sleeping-face": "sleeping",
        "flexed-biceps": "flexbicep",
        "pile-of-poo": "poo",
        "santa-claus": "fatherchristmas",
        "high-heeled-shoe": "heels",
        "castle": "europeancastle",
        "house": "housebuilding",
        "sun": "whitesun",
        "wrapped-gift": "present",
        "t-shirt": "mansshirt",
        "gem-stone": "gem",
        "mobile-phone": "cellphone",
        "magnifying-glass-tilted-left": "leftmagnifyingglass",
        "scissors": "blackscissors",
        "locked": "lock",
        "warning": "warningsign",
        "right-arrow": "blackrightwardsarrow",
        "hourglass-done": "hourglass",
        "recycling-symbol": "blackuniversalrecyclingsymbol",
        "dog-face": "dog",
        "cat-face": "cat",
        "tiger-face": "tiger",
        "pig-face": "pig",
    },
    "emojione": {"frog": "frog-face"},
    "emojione-monotone": {"frog": "frog-face"},
}

#: Pictures that do not show what their name says, found by eye: {style: {names}}.
SKIP = {"fxemoji": {"game-die"}}  # a flat tile

#: concept -> its members. `words` are what people call the concept; they caption its members now and then.
CONCEPTS = {
    "weapon": {
        "kind": "harm",
        "words": ["weapon", "weapons"],
        "members": ["kitchen knife", "dagger", "crossed swords", "bow and arrow", "bomb", "pistol", "axe"],
        "neighbours": ["water pistol", "shield", "hammer", "hammer and pick", "fork and knife", "scissors", "wrench", "syringe"],
    },
    "alcohol": {
        "kind": "harm",
        "words": ["alcohol", "an alcoholic drink", "booze"],
        "members": [
            "beer mug",
            "clinking beer mugs",
            "wine glass",
            "cocktail glass",
            "tropical drink",
            "sake",
            "bottle with popping cork",
            "clinking glasses",
            "tumbler glass",
        ],
        "neighbours": ["hot beverage", "baby bottle", "teacup without handle", "glass of milk"],
    },
    "fire and explosions": {
        "kind": "harm",
        "words": ["fire and explosions", "fire", "explosion", "explosions", "flames"],
        "members": ["fire", "collision", "fireworks", "sparkler", "volcano", "firecracker", "heart on fire"],
        "neighbours": ["star", "sun", "candle", "fire engine", "red heart", "bomb"],
    },
}

#: Keywords of ours, where emojibase gives fewer than three that do not repeat the name.
TAGS = {
    "victory-hand": "v sign, two fingers",
    "elephant": "trunk, tusks, big",
    "tropical-fish": "aquarium, reef, swim",
    "maple-leaf": "autumn, canada, foliage",
    "watermelon": "summer, slice, juicy",
    "strawberry": "red berry, jam, sweet",
    "sushi": "japanese, rice, raw fish",
    "glass-of-milk": "dairy, white, calcium",
    "fire-engine": "emergency, ladder, rescue",
    "cloud": "sky, overcast, grey",
    "jack-o-lantern": "october, carved, spooky",
    "christmas-tree": "december, decorated, ornaments",
    "musical-note": "melody, tune, song",
    "candle": "wax, wick, romantic",
    "pencil": "write, draw, school",
    "hammer-and-pick": "mining, crossed tools, miner",
    "crossed-swords": "duel, battle, fight, blades",
    "shield": "defence, protect, armour",
    "toilet": "restroom, loo, flush",
    "warning": "danger, attention, triangle",
    "recycling-symbol": "green, reuse, environment",
    "kitchen-knife": "blade, sharp, cut",
    "dagger": "blade, stab, assassin",
    "bow-and-arrow": "hunt, shoot, target",
    "axe": "weapon, lumberjack, blade",
    "bomb": "weapon, fuse, detonate",
    "pistol": "shoot, firearm",
    "water-pistol": "summer, plastic, splash",
    "bottle-with-popping-cork": "champagne, celebrate, sparkling",
    "clinking-glasses": "champagne, toast, cheers",
    "sake": "rice wine, japanese, warm",
    "tumbler-glass": "alcohol, ice, bar",
    "teacup-without-handle": "green tea, matcha, japan",
    "baby-chick": "yellow, hatchling",
    "spider": "eight legs, web, creepy",
    "red-heart": "romance, valentine",
    "monkey-face": "ape, jungle",
    "frog": "pond, green, croak",
    "mushroom": "forest, spots",
    "castle": "medieval, fortress, towers",
    "bus": "public transport, passengers",
    "anchor": "harbour, sea, nautical",
    "crescent-moon": "night, lunar",
    "star": "night sky, favourite",
    "umbrella": "weather, rainy day",
    "snowflake": "winter, frost, ice",
    "soccer-ball": "kick, goal, match",
    "basketball": "dunk, nba",
    "game-die": "luck, gamble, roll",
    "trumpet": "brass, fanfare, jazz",
    "violin": "strings, orchestra, classical",
    "guitar": "rock, strings",
    "television": "screen, watch, channel",
    "mobile-phone": "smartphone, call, screen",
    "locked": "security, padlock",
    "right-arrow": "next, forward",
    "sunflower": "yellow petals, seeds",
    "palm-tree": "island, vacation",
    "grapes": "vine, bunch, purple",
    "banana": "yellow, peel",
    "fire": "heat, blaze",
    "fireworks": "night sky, new year",
    "sparkler": "glitter, new year",
    "heart-on-fire": "passion, burning love",
    "collision": "blast, bang",
    "volcano": "lava, erupt, magma",
    "firecracker": "tnt, fuse, bang",
}
#: Keywords of emojibase that are not true of the picture.
NOT_TAGS = {"shield": {"weapon"}, "collision": {"bomb"}, "fire": {"tool", "af"}, "bomb": {"hot"}}

HELD_OUT_SHARE = 0.10
SEED = 20261121
