"""What the sample catalogue's shop sells, and the words that titles and shoppers have for it."""

from collections.abc import Mapping
from dataclasses import dataclass

HIDEABLE = ("colour", "pattern", "kind")  # what a title may leave out, since the picture shows it

# What titles call a value (first), and what shoppers call it.
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "Black": ("black",),
    "White": ("white",),
    "Grey": ("grey", "gray"),
    "Red": ("red",),
    "Maroon": ("maroon", "wine red"),
    "Pink": ("pink",),
    "Orange": ("orange",),
    "Yellow": ("yellow",),
    "Green": ("green",),
    "Teal": ("teal",),
    "Blue": ("blue",),
    "Navy Blue": ("navy blue", "navy"),
    "Purple": ("purple", "violet"),
    "Brown": ("brown",),
    "Beige": ("beige", "sand"),
}
PATTERN_WORDS: dict[str, tuple[str, ...]] = {
    "Plain": ("plain", "solid"),
    "Striped": ("striped", "stripy"),
    "Dotted": ("dotted", "polka dot"),
    "Checked": ("checked", "plaid"),
    "Floral": ("floral", "flower print"),
    "Zigzag": ("zigzag", "chevron"),
    "Star Print": ("star print", "starry"),
}
# What titles say; what shoppers say and whose products they accept then.
GENDER_WORDS: dict[str, str] = {"Men": "men's", "Women": "women's", "Boys": "boys", "Girls": "girls", "Unisex": ""}
GENDER_ASKS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "Men": (("men's", ("Men", "Unisex")), ("mens", ("Men", "Unisex"))),
    "Women": (("women's", ("Women", "Unisex")), ("ladies", ("Women", "Unisex"))),
    "Boys": (("boys", ("Boys",)), ("kids", ("Boys", "Girls"))),
    "Girls": (("girls", ("Girls",)), ("kids", ("Boys", "Girls"))),
}
COLOUR_WEIGHTS = (1.5, 1.2, 0.9, 1.3, 0.7, 0.9, 0.7, 0.8, 1.0, 0.7, 1.2, 1.1, 0.7, 0.9, 0.8)
PATTERN_WEIGHTS = (0.40, 0.17, 0.11, 0.10, 0.11, 0.06, 0.05)


@dataclass(frozen=True)
class KindFacts:
    """What the shop knows of an article type.

    Attributes:
        category: masterCategory and subCategory.
        nouns: What titles call it (first) and what shoppers call it.
        styles: For each style, its phrase with a place for the noun; "{noun}" alone where people have no word for it.
        genders: Who it is made for; repeated by weight.
        usage: Values of `usage`; repeated by weight.
        price: The usual lowest and highest price.
        weight: How often the shop has it, against 1.
        plain: Share of plain ones, where it is not the usual.
    """

    category: tuple[str, str]
    nouns: tuple[str, ...]
    styles: Mapping[str, str]
    genders: tuple[str, ...]
    usage: tuple[str, ...]
    price: tuple[float, float]
    weight: float = 1.0
    plain: float = PATTERN_WEIGHTS[0]


_EVERYONE = ("Men", "Men", "Men", "Women", "Women", "Women", "Boys", "Girls")
_ADULTS = ("Men", "Women", "Unisex")
_FEMALE = ("Women", "Women", "Women", "Girls")
_ALL = ("Unisex",)
_TOPWEAR, _BOTTOMWEAR = ("Apparel", "Topwear"), ("Apparel", "Bottomwear")
_SHOES, _BAGS = ("Footwear", "Shoes"), ("Accessories", "Bags")
_EVERYDAY, _SPORTY, _SMART = ("Casual",), ("Casual", "Casual", "Sports"), ("Casual", "Casual", "Formal")

KINDS: dict[str, KindFacts] = {
    "Tshirts": KindFacts(
        _TOPWEAR, ("t-shirt", "tee", "tshirt"),
        {"Crew Neck": "crew neck {noun}", "V-Neck": "v-neck {noun}", "Long Sleeve": "long sleeve {noun}"},
        _EVERYONE, _SPORTY, (9, 35), weight=2.2,
    ),
    "Shirts": KindFacts(
        _TOPWEAR, ("shirt", "button-up"),
        {"Long Sleeve": "long sleeve {noun}", "Short Sleeve": "short sleeve {noun}"},
        ("Men", "Men", "Men", "Women", "Boys"), _SMART, (19, 69), weight=1.5,
    ),
    "Sweatshirts": KindFacts(
        _TOPWEAR, ("hoodie", "hooded sweatshirt"), {"Pullover": "{noun}", "Zip-Up": "zip-up {noun}"},
        _EVERYONE, _SPORTY, (25, 75), weight=1.2,
    ),
    "Sweaters": KindFacts(
        _TOPWEAR, ("sweater", "jumper"),
        {"Crew Neck": "crew neck {noun}", "Turtleneck": "turtleneck {noun}", "Cardigan": "cardigan"},
        _EVERYONE, _EVERYDAY, (29, 99),
    ),
    "Jackets": KindFacts(
        _TOPWEAR, ("jacket", "coat"), {"Bomber": "bomber {noun}", "Puffer": "puffer {noun}", "Biker": "biker {noun}"},
        _EVERYONE, _EVERYDAY, (49, 189), weight=1.2, plain=0.65,
    ),
    "Dresses": KindFacts(
        ("Apparel", "Dress"), ("dress", "frock"), {"Mini": "mini {noun}", "Midi": "midi {noun}", "Maxi": "maxi {noun}"},
        _FEMALE, ("Casual", "Casual", "Party"), (29, 129), weight=1.6, plain=0.3,
    ),
    "Skirts": KindFacts(
        _BOTTOMWEAR, ("skirt",),
        {"Mini": "mini {noun}", "Pleated": "pleated {noun}", "Pencil": "pencil {noun}", "Maxi": "maxi {noun}"},
        _FEMALE, _EVERYDAY, (19, 69),
    ),
    "Trousers": KindFacts(
        _BOTTOMWEAR, ("trousers", "pants"),
        {"Slim": "slim {noun}", "Wide-Leg": "wide-leg {noun}", "Cargo": "cargo {noun}"},
        _EVERYONE, _SMART, (25, 89), weight=1.2, plain=0.65,
    ),
    "Shorts": KindFacts(
        _BOTTOMWEAR, ("shorts",), {"Chino": "chino {noun}", "Drawstring": "drawstring {noun}"},
        _EVERYONE, _SPORTY, (15, 49),
    ),
    "Casual Shoes": KindFacts(
        _SHOES, ("sneakers", "trainers", "canvas shoes"),
        {"Low-Top": "{noun}", "High-Top": "high-top {noun}", "Slip-On": "slip-on {noun}"},
        _EVERYONE, _SPORTY, (29, 109), weight=1.6, plain=0.6,
    ),
    "Boots": KindFacts(
        _SHOES, ("boots",), {"Ankle": "ankle {noun}", "Chelsea": "chelsea {noun}", "Knee-High": "knee-high {noun}"},
        ("Men", "Women", "Women"), _EVERYDAY, (49, 169), plain=0.75,
    ),
    "Heels": KindFacts(
        _SHOES, ("heels", "pumps", "court shoes"),
        {"Stiletto": "stiletto {noun}", "Block Heel": "block {noun}", "Kitten Heel": "kitten {noun}"},
        ("Women",), ("Casual", "Formal", "Party"), (35, 139), weight=1.2, plain=0.6,
    ),
    "Handbags": KindFacts(
        _BAGS, ("handbag", "purse"),
        {
            "Tote": "tote {noun}", "Crossbody": "crossbody {noun}",
            "Bucket": "bucket {noun}", "Top-Handle": "top-handle {noun}",
        },
        ("Women",), ("Casual", "Casual", "Formal"), (29, 199), weight=1.3, plain=0.5,
    ),
    "Backpacks": KindFacts(
        _BAGS, ("backpack", "rucksack"), {"Flap": "flap {noun}", "Zip": "{noun}"},
        (*_ADULTS, "Boys", "Girls"), ("Casual", "Casual", "Travel"), (29, 119), plain=0.45,
    ),
    "Watches": KindFacts(
        ("Accessories", "Watches"), ("watch", "wristwatch"), {"Round": "round {noun}", "Square": "square {noun}"},
        _ADULTS, _SMART, (39, 249), weight=1.2, plain=0.75,
    ),
    "Sunglasses": KindFacts(
        ("Accessories", "Eyewear"), ("sunglasses", "shades"),
        {"Round": "round {noun}", "Aviator": "aviator {noun}", "Cat-Eye": "cat-eye {noun}", "Square": "square {noun}"},
        _ADULTS, _EVERYDAY, (15, 129), plain=0.8,
    ),
    "Caps": KindFacts(
        ("Accessories", "Headwear"), ("cap", "baseball cap"), {"Baseball": "{noun}"},
        ("Men", "Unisex", "Boys"), _SPORTY, (12, 39), weight=0.8,
    ),
    "Hat": KindFacts(
        ("Accessories", "Headwear"), ("hat",), {"Beanie": "beanie", "Bucket Hat": "bucket {noun}"},
        ("Women", "Unisex", "Girls"), _EVERYDAY, (12, 45), weight=0.8,
    ),
    "Socks": KindFacts(
        ("Accessories", "Socks"), ("socks",),
        {"Ankle": "ankle {noun}", "Crew": "{noun}", "Knee-High": "knee-high {noun}"},
        (*_EVERYONE, "Unisex"), _SPORTY, (5, 19), plain=0.25,
    ),
    "Scarves": KindFacts(
        ("Accessories", "Scarves"), ("scarf",), {"Hemmed": "{noun}", "Fringed": "fringed {noun}", "Snood": "snood"},
        _ADULTS, _EVERYDAY, (12, 59), plain=0.3,
    ),
    "Umbrellas": KindFacts(
        ("Accessories", "Umbrellas"), ("umbrella", "brolly"), {"Open": "{noun}", "Folded": "folded {noun}"},
        _ALL, ("Casual", "Travel"), (15, 49), plain=0.35,
    ),
    "Mugs": KindFacts(
        ("Home", "Tableware"), ("mug", "coffee mug"),
        {"Classic": "{noun}", "Tall": "tall {noun}", "Espresso": "espresso {noun}"},
        _ALL, ("Home",), (7, 25), weight=1.2, plain=0.3,
    ),
    "Water Bottle": KindFacts(
        ("Accessories", "Water Bottle"), ("water bottle", "drinks bottle"),
        {"Flask": "{noun}", "Sports": "sports {noun}"},
        _ALL, ("Sports", "Travel"), (12, 39), weight=0.8,
    ),
    "Lamps": KindFacts(
        ("Home", "Lighting"), ("lamp", "light"),
        {"Cone": "table {noun}", "Drum": "drum shade {noun}", "Dome": "dome {noun}", "Floor": "floor {noun}"},
        _ALL, ("Home",), (25, 149),
    ),
    "Chairs": KindFacts(
        ("Home", "Furniture"), ("chair",), {"Armchair": "armchair", "Dining": "dining {noun}"},
        _ALL, ("Home",), (79, 499),
    ),
    "Stools": KindFacts(
        ("Home", "Furniture"), ("stool",), {"Bar Stool": "bar {noun}"}, _ALL, ("Home",), (49, 179), weight=0.6,
    ),
    "Cushion Covers": KindFacts(
        ("Home", "Home Furnishing"), ("cushion", "throw pillow"), {"Square": "square {noun}", "Round": "round {noun}"},
        _ALL, ("Home",), (12, 49), plain=0.25,
    ),
}  # fmt: skip

# All invented. Neither list may hold a word for a colour, a pattern or a kind: titles must be able to hide them.
BRANDS = (
    "Norvik", "Tallowe", "Ostravelle", "Quillmere", "Fennwicke", "Lumarro", "Kestrand", "Vellunor", "Marlowick",
    "Zephrine", "Dovarro", "Hollisane", "Pemberlo", "Ravenno", "Tindrell", "Wexholme", "Yarrowen", "Calvandra",
    "Elmsworthe", "Grovanti",
)  # fmt: skip
LINES = (
    "Weekender", "Studio", "Everyday", "Drift", "Atlas", "Signature", "Heritage", "Metro", "Voyage", "Encore",
    "Original", "Crest", "Tempo", "Orbit", "Sunday", "Avenue", "Compass", "Nomad", "Solstice", "Horizon", "Pioneer",
    "Cadence", "Echo", "Prelude", "Summit", "Harbour", "Riviera", "Alba",
)  # fmt: skip

# In the shop window: these are there from the start, half of them with titles that say neither colour nor pattern.
WINDOW = (
    ("Tshirts", "Red", "Striped"),
    ("Dresses", "Blue", "Floral"),
    ("Mugs", "Yellow", "Dotted"),
    ("Shirts", "Green", "Checked"),
    ("Cushion Covers", "Teal", "Zigzag"),
    ("Backpacks", "Navy Blue", "Star Print"),
)
WINDOW_COPIES = 4
HIDDEN_SETS = (
    ("colour", "pattern"), ("colour",), ("pattern",), ("colour", "pattern", "kind"), ("kind",), ("colour", "kind"),
)  # fmt: skip
HIDDEN_WEIGHTS = (0.42, 0.15, 0.13, 0.16, 0.06, 0.08)


# What shoppers ask for besides the kind, and the share of them who ask for just this.
ASKS = (
    (("baseColour", "pattern"), 0.35),
    (("baseColour",), 0.16),
    (("pattern",), 0.14),
    (("baseColour", "style"), 0.1),
    (("style", "pattern"), 0.06),
    (("gender", "pattern"), 0.07),
    (("gender", "baseColour"), 0.07),
    ((), 0.05),
)
