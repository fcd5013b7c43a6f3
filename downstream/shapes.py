"""What the drawn classes look like, as data: a small language of parts, one short entry a class.

An entry lists parts from back to front, separated by `;`, and variants of the class, separated by `|`. A part is

    kind numbers... texture colour

in a frame of 100 x 100 units, x to the right, y down; animals and vehicles look to the right. Kinds:

    o cx cy rx ry [degrees]      ellipse             r width cx cy rx ry       ring
    p x y x y ...                polygon             b x y x y ...             polygon with rounded corners
    l width x y x y ...          broken line         c width x y x y ...       the same, rounded
    x x1 y1 x2 y2 radius         rounded rectangle   w cx cy radius            wheel (needs no texture and colour)
    g rx ry columns rows x1 y1 x2 y2   grid of rectangles     d radius count x1 y1 x2 y2   row of discs
    k number x y    COCO's keypoint of that number, which is not drawn (needs no texture and colour)

`~20` after the kind swings the part about its first point by up to 20 degrees, `&` repeats the previous part's swing.
A colour is a palette below, drawn once an object, or A, B, C: any colour. `-` and `+` behind it darken and lighten.
"""

COLOURS = {
    "coat": "5a3a22 2e2723 c8a06a e8dfd0 8a8078 a5642f d8b890",
    "skin": "f0c8a0 d8a070 8a5a3c 5f3c28 e8b890",
    "hair": "2a1c14 5a3a1c c8a050 181414 8a8280",
    "dark": "1c1c20 2a2628",
    "white": "f4f2ee e6e4dc",
    "steel": "a8adb5 7c828c c4c8ce",
    "wood": "8a5a30 b98650 5c3a20 c89a68",
    "green": "2f6a2a 3f7f32 5a8a34",
    "red": "c8281e b01c24 d84030",
    "orange": "f08a1c e87414",
    "yellow": "f2cc2a e8b818",
    "brown": "6a4020 7d5228 543018",
    "cream": "f0dcb0 e4c890",
    "blue": "2c58b0 3c78c8 1f3f80",
    "pink": "f0a0b0 e87898",
    "glass": "8cb4c8 6a8fa5 a8ccd8",
    "grey": "85807a 6c6c70 a09c94",
    "clay": "b86a3c a05030 c88858",
}


def _legs(coat: str, width: float, top: float, bottom: float, back: float, front: float) -> str:
    """Four legs, the far pair darker."""
    knee = (top + bottom) / 2
    return ";".join(
        f"l~14 {width} {x} {top} {x - 1} {knee} {x} {bottom} {coat}{tone}"
        for x, tone in ((back + 8, "-"), (front - 8, "-"), (back, ""), (front, ""))
    )


def _beast(coat: str, legs: float, extra: str, body: str = "58 28 15") -> str:
    """A four-legged animal: legs, a barrel of a body (y, rx, ry), then `extra` (neck, head, tail)."""
    y, rx, ry = map(float, body.split())
    front = 48 + rx * 0.78
    return f"{_legs(coat, legs, y + 4, 97, 48 - rx * 0.78, front)};o 48 {y} {rx} {ry} {coat};{extra}"


_PERSON = (
    "l~16 10 45 50 44 72 fabric B-;l& 8 44 72 43 92 fabric B-;l& 7 42 95 47 96 plain dark;k& 12 45 50;k& 14 44 72;k& 16 43 92;"
    "l~16 10 55 50 56 72 fabric B;l& 8 56 72 56 92 fabric B;l& 7 55 95 61 96 plain dark;k& 11 55 50;k& 13 56 72;k& 15 56 92;"
    "l~35 7 39 26 34 40 fabric A-;l& 5 34 41 36 55 plain skin;k& 6 39 26;k& 8 34 40;k& 10 36 54;"
    "b 37 21 50 19 63 21 62 38 59 55 41 55 38 38 {shirt} A;l 6 50 14 50 21 plain skin;"
    "l~45 7 61 26 66 40 fabric A-;l& 5 66 41 65 55 plain skin;k& 5 61 26;k& 7 66 40;k& 9 65 54;"
    "k 0 50 13;k 1 52.5 11;k 2 47.5 11;k 3 56 11;k 4 44 11;o 50 10 6.5 8.5 plain skin;b 43 11 43 3 50 0 57 3 57 11 54 6 46 6 fur hair;d .9 2 47.5 11 52.5 11 plain dark"
)
_STANDING = f"{_PERSON.format(shirt='fabric')}|{_PERSON.format(shirt='striped')}"
_SEATED = (
    "b 37 8 50 5 62 8 63 25 60 44 40 46 38 25 fabric A;o 50 -6 7.5 9.5 plain skin;"
    "b 42 -5 42 -14 50 -17 58 -14 58 -5 54 -10 46 -10 fur hair;l 10 43 44 66 50 fabric B;l 8 66 50 62 74 fabric B-;"
    "l 7 44 14 56 28 fabric A-;l 5 56 28 74 30 plain skin;"
    "k 0 56 -4;k 2 54 -7;k 4 48 -6;k 6 44 14;k 8 56 28;k 10 73 30;k 12 44 44;k 14 65 50;k 16 62 73"
)
_BICYCLE = (
    "r 4 22 70 20 20 plain dark;r 4 78 70 20 20 plain dark;l .8 22 50 22 90 metal steel;l .8 2 70 42 70 metal steel;"
    "l .8 78 50 78 90 metal steel;l .8 58 70 98 70 metal steel;l 3.5 22 70 36 42 68 40 48 70 22 70 metal A;"
    "l 3.5 36 42 48 70 metal A;l 3.5 68 40 78 70 metal A;l 3 34 42 33 33 metal steel;l 5 27 32 40 32 plain dark;"
    "l 3 68 40 66 28 74 26 metal steel;o 48 70 5 5 metal steel"
)
_MOTORCYCLE = (
    "w 20 72 19;w 80 72 19;l 5 20 72 40 56 metal steel;l 5 80 72 66 36 metal steel;x 36 52 60 76 6 metal grey;"
    "g 10 1 1 4 48 56 48 72 plain dark;l 5 36 78 10 80 metal steel;b 38 50 46 36 64 36 70 46 58 54 gloss A;"
    "b 6 46 12 40 36 42 44 50 30 54 plain dark;l 3 66 36 60 24 52 24 metal steel;o 72 38 6 7 glass cream;"
    "c 4 62 60 70 50 84 50 94 56 gloss A"
)
_CHAIR = (
    "l 5 30 55 26 96 wood wood-;l 5 66 55 62 96 wood wood-;l 5 38 60 36 99 wood wood;l 5 78 60 80 99 wood wood;"
    "l 5 30 58 26 6 wood wood;l 5 66 56 64 4 wood wood;x 26 4 66 18 3 wood wood;l 3 36 18 39 52 wood wood-;"
    "l 3 46 18 48 52 wood wood-;l 3 56 18 58 52 wood wood-;p 28 52 68 50 82 62 36 64 fabric A"
)
_CAR = (
    "b 14 50 28 28 66 28 82 48 80 56 14 56 gloss A;p 24 48 33 33 47 33 47 48 glass glass;p 51 48 51 33 64 33 74 48 "
    "glass glass;b 2 66 5 50 20 47 80 47 95 53 99 66 96 76 4 76 gloss A;l 1 49 48 49 74 plain A-;l 2 4 70 97 70 plain "
    "A-;w 24 75 11;w 76 75 11;o 95 59 3 4 glass yellow;o 4 58 2 4 plain red;l 2 54 54 60 54 metal steel"
)
_CAR_BEHIND = (
    "x 12 78 28 94 4 plain dark;x 72 78 88 94 4 plain dark;b 24 44 32 16 68 16 76 44 gloss A;p 31 42 36 23 64 23 69 42 glass glass;"
    "b 6 54 16 42 84 42 94 54 94 82 6 82 gloss A;x 8 52 24 60 2 glow red;x 76 52 92 60 2 glow red;x 38 62 62 70 1 text white;"
    "l 5 6 78 94 78 plain grey;l 1 16 64 84 64 plain A-"
)
_HOUND = "c~25 {0} 22 50 10 40 8 26 fur coat;b 62 44 74 24 86 32 76 62 66 66 fur coat;o 80 28 12 11 fur coat"

SHAPES = {
    "person": f"{_STANDING}|"
    "l 9 44 46 68 46 fabric B-;l 8 68 46 76 70 fabric B-;o 80 73 5 4 plain dark;k 11 46 46;k 13 67 46;k 15 76 69;"
    + _SEATED
    + ";o 66 78 5 4 plain dark|"
    + "b 20 99 24 62 42 52 58 52 76 62 80 99 striped A;"
    "x 42 42 58 56 5 plain skin-;o 50 26 17 22 plain skin;b 32 28 32 8 50 0 68 8 68 28 62 14 38 14 fur hair;"
    "d 2.2 2 44 25 56 25 plain dark;l 1.5 50 27 49 33 plain skin-;c 2 44 39 50 41 56 39 plain red;"
    "k 0 49 33;k 1 56 25;k 2 44 25;k 3 66 27;k 4 34 27;k 5 73 66;k 6 27 66",
    "bicycle": _BICYCLE,
    "car": f"{_CAR}|{_CAR}|{_CAR_BEHIND}",
    "motorcycle": _MOTORCYCLE,
    "airplane": "p 52 48 66 48 54 30 48 30 metal white-;b 2 50 8 44 30 42 78 42 92 45 99 51 90 57 30 58 8 53 metal white;"
    "p 3 45 2 24 10 24 20 43 gloss A;l 3 6 51 90 53 gloss A;d 1.3 14 24 47 82 47 plain dark;p 90 46 96 49 91 50 86 47 "
    "plain dark;p 40 53 60 53 36 76 28 76 metal steel;x 40 60 53 67 3 metal grey;p 4 50 15 50 6 58 1 58 metal steel",
    "bus": "x 2 16 98 82 6 gloss A;x 5 22 95 46 3 glass glass;g 1 12 6 1 20 34 82 34 plain A-;l 4 2 60 98 60 gloss B;"
    "x 80 24 92 78 2 glass glass-;l 1 86 24 86 78 plain dark;w 24 82 10;w 68 82 10;o 96 72 2 4 glass yellow;"
    "x 40 17 66 21 1 text yellow|x 16 4 84 90 8 gloss A;x 21 22 79 54 4 glass glass;l 2 50 22 50 54 plain dark;"
    "x 26 8 74 18 2 text yellow;o 25 74 6 5 glass yellow;o 75 74 6 5 glass yellow;g 10 1 1 4 50 66 50 78 plain dark;"
    "x 20 90 34 99 3 plain dark;x 66 90 80 99 3 plain dark;l 3 16 62 84 62 gloss B",
    "train": "l 3 -4 88 104 88 metal grey;b -2 26 74 26 90 34 99 60 99 78 -2 78 gloss A;p 80 32 88 36 95 54 84 54 glass "
    "glass;g 6 8 5 1 8 43 68 43 glass glass;l 5 -2 66 98 66 gloss B;x 36 32 44 76 2 plain A-;d 6 6 6 82 88 82 metal dark;"
    "l 1.5 30 26 40 12 52 12 metal grey;o 96 68 2 3 glass yellow|l 3 -4 92 104 92 metal grey;x 6 20 36 70 3 gloss A;"
    "x 11 28 30 48 2 glass glass;o 62 54 34 18 metal dark;x 34 36 92 72 6 metal dark;p 78 38 76 12 90 12 88 38 metal dark;"
    "o 56 34 7 8 gloss yellow;d 12 3 44 80 84 80 metal red;d 8 3 44 80 84 80 plain dark;w 20 82 9;l 4 20 80 88 80 metal "
    "steel;p 92 70 104 90 92 90 metal grey;l 4 4 18 40 18 plain dark",
    "truck": "x 2 10 66 74 2 gloss white;l 2 2 66 66 66 plain grey;x 12 24 56 54 3 text A;b 68 74 68 26 84 26 92 48 98 54 "
    "98 78 68 78 gloss A;p 74 48 74 32 83 32 90 48 glass glass;l 5 2 77 98 77 plain dark;w 16 82 11;w 40 82 11;w 82 82 11;"
    "o 96 62 2 3 glass yellow",
    "boat": "l 3 46 10 46 70 wood wood;p 49 8 86 60 49 62 fabric white;p 43 14 43 62 14 62 fabric A;"
    "b 4 68 50 70 97 66 86 88 20 88 wood B;l 3 5 70 95 68 gloss white|b 2 62 40 66 98 56 84 86 14 86 gloss white;"
    "l 4 4 68 92 64 gloss A;x 24 40 62 63 4 gloss white;g 5 5 3 1 31 50 54 50 glass glass;l 2 44 40 44 16 metal steel;"
    "p 45 16 58 21 45 26 fabric A",
    "traffic light": "l 7 50 68 50 110 metal grey;x 33 0 67 72 7 plain dark;r 2 50 14 9 9 metal grey;r 2 50 36 9 9 metal "
    "grey;r 2 50 58 9 9 metal grey;o 50 14 9 9 glow red;o 50 36 9 9 plain brown;o 50 58 9 9 plain dark|l 7 50 68 50 110 "
    "metal grey;x 33 0 67 72 7 plain dark;o 50 14 9 9 plain brown;o 50 36 9 9 plain brown-;o 50 58 9 9 glow lamp",
    "fire hydrant": "x 34 36 66 88 5 gloss red;x 28 84 72 98 3 gloss red-;b 32 38 36 18 50 12 64 18 68 38 gloss red+;"
    "x 45 4 55 16 2 gloss red;x 20 44 36 60 4 gloss red;x 64 44 80 60 4 gloss red;o 50 56 9 9 metal steel;o 50 56 4 4 "
    "plain dark;l 4 30 38 70 38 gloss red-",
    "stop sign": "l 5 50 50 50 116 metal steel;p 34 2 66 2 88 24 88 56 66 78 34 78 12 56 12 24 plain white;p 35 5 65 5 85 25 "
    "85 55 65 75 35 75 15 55 15 25 plain red;c 4 30 33 24 33 24 40 30 40 30 47 23 47 plain white;l 4 34 33 44 33 39 33 39 "
    "48 plain white;r 4 53 40 5 7 plain white;l 4 64 48 64 33 72 33 72 40 64 40 plain white",
    "parking meter": "l 7 50 52 50 108 metal grey;x 28 2 72 54 18 metal steel;x 36 10 64 26 6 glass glass;l 2 50 24 44 14 "
    "plain red;x 38 34 62 40 1 plain dark;x 44 44 56 50 1 text white",
    "bench": "l 5 14 60 12 92 metal dark;l 5 88 60 90 92 metal dark;l 5 20 60 12 20 metal dark;l 5 82 60 90 20 metal dark;"
    "l 7 4 24 96 24 wood wood;l 7 6 36 94 36 wood wood-;l 7 8 48 92 48 wood wood;p 10 56 90 56 98 68 2 68 wood wood+",
    "bird": "l 2 46 72 44 96 plain orange;l 2 54 72 56 96 plain orange;p 24 52 2 66 6 76 30 66 fur A-;o 50 54 28 19 fur A;"
    "o 56 60 18 12 fur cream;o 74 32 13 12 fur A;p 85 29 99 34 85 37 plain orange;o 78 29 2.4 2.4 plain dark;"
    "b 26 50 48 42 60 52 34 68 20 66 striped A-|b 2 54 24 44 60 48 84 50 60 62 24 60 fur A;b 40 50 22 6 44 10 62 48 striped "
    "A-;b 46 54 44 94 58 90 66 54 striped A-;o 84 48 9 8 fur A;p 91 46 101 50 91 52 plain orange;o 86 46 1.6 1.6 plain dark",
    "cat": "c~30 6 24 58 8 48 8 22 16 12 tabby coat;"
    + _beast(
        "tabby coat",
        7,
        "p 66 30 68 8 78 22 tabby coat;p 82 22 92 8 94 30 tabby coat;o 80 32 16 14 tabby coat;"
        "d 2.6 2 75 30 86 30 glow lamp;o 81 37 2 1.6 plain pink;l .7 70 37 58 35 plain white;l .7 90 37 101 35 plain white",
        "60 28 13",
    )
    + "|c 6 30 90 6 92 6 74 tabby coat;b 30 98 30 60 44 42 58 42 70 60 70 98 tabby coat;l 8 44 66 44 96 tabby coat+;l 8 57 66 "
    "57 96 tabby coat+;p 32 22 32 -4 48 10 tabby coat;p 54 10 70 -4 70 22 tabby coat;o 51 26 21 19 tabby coat;d 3.6 2 43 23 59 "
    "23 glow lamp;d 1.4 2 43 23 59 23 plain dark;p 48 31 54 31 51 35 plain pink;l .7 42 34 22 30 plain white;l .7 60 34 80 30 "
    "plain white",
    "dog": _beast(
        "fur coat",
        8,
        _HOUND.format(6) + ";o 92 33 10 6 fur coat+;o 100 31 3 3 plain dark;o 83 24 2 2 plain dark;"
        "b 70 20 76 20 78 40 70 46 66 34 fur coat-",
        "54 28 14",
    )
    + "|b 26 98 28 62 40 46 60 46 72 62 74 98 fur coat;l 10 42 66 42 97 fur coat+;l 10 58 66 58 97 fur coat+;o 50 28 21 22 fur "
    "coat;b 32 12 24 16 20 40 28 46 34 26 fur coat-;b 68 12 76 16 80 40 72 46 66 26 fur coat-;o 50 38 11 10 fur coat+;"
    "o 50 33 5 3.5 plain dark;d 2.5 2 42 24 58 24 plain dark;b 46 44 54 44 53 54 47 54 plain pink",
    "horse": "c~25 7 22 44 10 54 8 80 fur hair;"
    + _beast(
        "fur coat",
        6,
        "b 60 44 72 14 84 14 80 34 72 58 fur coat;b 76 12 84 8 102 28 98 36 90 32 78 26 fur coat;"
        "p 76 12 77 2 82 10 fur coat;c 6 76 8 68 18 62 38 fur hair;o 85 17 1.6 1.6 plain dark;o 98 31 4 4 fur coat-",
        "48 28 12",
    ),
    "sheep": _beast(
        "plain dark",
        5,
        "o 48 52 32 21 wool white;o 28 46 12 12 wool white;o 66 44 13 12 wool white;o 85 40 8 12 -20 "
        "plain dark;l 5 78 32 70 35 plain dark;o 84 28 10 7 wool white;o 86 38 1.3 1.3 plain white;"
        "o 16 54 5 7 wool white",
        "58 28 15",
    ),
    "cow": "c~20 2.5 18 46 12 60 12 76 fur coat;"
    + _beast(
        "patched white",
        7,
        "b 64 44 76 28 86 30 82 52 70 60 patched white;b 76 26 90 24 100 44 96 52 86 50 78 40 patched "
        "white;o 97 47 6 6 plain pink;c 3 80 26 78 16 84 12 plain cream;c 3 88 25 90 15 96 13 plain cream;o 88 33 1.8 1.8 "
        "plain dark;b 74 28 66 30 72 36 fur dark;o 36 66 5 5 plain pink;x 19 40 76 50 5 patched white",
        "52 31 16",
    ),
    "elephant": _beast(
        "hide grey",
        13,
        "o 78 38 17 18 hide grey;c 9 90 40 97 60 94 82 101 88 hide grey;b 62 26 76 24 76 50 66 62 "
        "58 46 hide grey-;c 4 86 52 98 60 106 56 plain cream;o 85 34 1.6 1.6 plain dark;c 2 14 48 8 66 10 74 hide "
        "grey-",
        "48 34 22",
    ),
    "bear": _beast(
        "fur brown",
        12,
        "o 76 40 18 17 fur brown;d 5.5 2 68 24 82 22 fur brown-;o 90 46 10 8 fur brown+;o 98 43 3.4 3 "
        "plain dark;o 84 36 1.8 1.8 plain dark;o 30 48 18 20 fur brown",
        "54 32 20",
    ),
    "zebra": _beast(
        "zebra white",
        6,
        "c~20 3 20 46 12 66 zebra white;b 60 44 74 14 86 16 80 36 72 58 zebra white;b 76 12 84 8 101 "
        "28 97 36 90 32 78 26 zebra white;p 76 12 77 1 83 10 zebra white;c 5 76 8 69 18 62 38 plain dark;o 98 32 4.5 4 "
        "plain dark;o 85 17 1.6 1.6 plain dark",
        "48 28 13",
    ),
    "giraffe": "c 2 24 56 18 74 giraffe cream;"
    + _beast(
        "giraffe cream",
        4,
        "b 54 62 72 18 80 18 72 60 64 70 giraffe cream;b 72 8 80 6 92 18 90 23 82 22 73 20 giraffe cream;"
        "l 1.8 75 10 74 1 plain brown;l 1.8 78 10 79 1 plain brown;o 82 12 1.3 1.3 plain dark;p 72 12 64 10 72 17 giraffe "
        "cream;c 3 71 16 60 40 54 58 plain brown",
        "62 22 9",
    ),
    "backpack": "c 5 40 16 50 0 60 16 fabric A-;b 18 96 18 40 28 14 72 14 82 40 82 96 fabric A;x 26 54 74 90 8 fabric B;"
    "l 2 26 62 74 62 metal steel;c 3 22 44 50 36 78 44 fabric A-;l 2 50 42 50 50 metal steel;l 6 14 44 14 88 fabric A-;"
    "l 6 86 44 86 88 fabric A-",
    "umbrella": "c 3 50 10 50 88 58 97 64 88 metal dark;b 2 52 12 22 50 4 88 22 98 52 80 46 66 52 50 46 34 52 20 46 fabric A;"
    "b 34 52 40 20 50 4 60 20 66 52 50 46 fabric B;l 1 50 5 34 51 plain dark;l 1 50 5 66 51 plain dark;l 3 50 -2 50 6 metal dark",
    "handbag": "c 4 32 44 36 8 64 8 68 44 gloss A-;b 10 92 18 42 82 42 90 92 gloss A;p 16 44 84 44 74 66 26 66 gloss A-;"
    "x 45 60 55 70 2 metal yellow;l 1 14 88 86 88 plain cream",
    "tie": "p 42 2 58 2 62 12 54 20 46 20 38 12 striped A;p 46 20 54 20 62 78 50 98 38 78 striped A",
    "suitcase": "l 3 38 24 38 4 62 4 62 24 metal steel;x 16 24 84 92 8 gloss A;l 2 30 26 30 90 gloss A-;l 2 43 26 43 90 gloss "
    "A-;l 2 57 26 57 90 gloss A-;l 2 70 26 70 90 gloss A-;d 5 2 26 96 74 96 plain dark;l 4 44 24 56 24 plain dark",
    "frisbee": "o 50 50 48 22 gloss A;o 50 46 40 16 gloss A+;r 1.5 50 46 26 10 gloss A-;r 1.5 50 46 34 13 gloss A-",
    "skis": "c 5 6 96 60 30 84 2 92 4 gloss A;c 5 22 100 76 34 98 8 104 12 gloss A;x 36 50 48 58 2 plain dark;x 52 52 64 60 2 "
    "plain dark;l 1.5 2 20 70 96 metal steel;o 66 90 5 3 plain dark",
    "snowboard": "b 30 50 34 8 50 0 66 8 68 50 66 92 50 100 34 92 gloss A;b 38 50 42 34 58 34 62 50 58 66 42 66 gloss B;"
    "x 36 22 64 30 3 plain dark;x 36 70 64 78 3 plain dark;l 3 40 18 60 34 metal steel;l 3 40 66 60 82 metal steel",
    "sports ball": "o 50 50 46 46 gloss white;p 50 34 66 46 60 64 40 64 34 46 plain dark;p 50 4 62 8 50 18 38 8 plain dark;"
    "p 95 46 92 62 82 56 84 42 plain dark;p 5 46 8 62 18 56 16 42 plain dark;p 70 88 78 82 72 72 62 78 plain dark;"
    "p 30 88 22 82 28 72 38 78 plain dark;l 1 50 18 50 34 plain dark;l 1 66 46 84 46 plain dark;l 1 34 46 16 46 plain dark|"
    "o 50 50 46 46 leather orange;l 2 50 4 50 96 plain dark;l 2 4 50 96 50 plain dark;c 2 18 18 36 50 18 82 plain dark;"
    "c 2 82 18 64 50 82 82 plain dark",
    "kite": "c 1.5 50 66 40 80 54 90 44 104 plain A-;p 50 0 82 30 50 70 18 30 fabric A;p 50 0 50 30 18 30 fabric B;p 50 30 82 30 "
    "50 70 fabric C;l 1.2 50 0 50 70 wood wood;l 1.2 18 30 82 30 wood wood;p 44 78 36 84 36 76 fabric B;p 48 90 56 96 57 86 "
    "fabric C",
    "baseball bat": "l 5 8 92 34 66 wood wood;b 30 66 82 6 92 4 96 8 94 18 36 72 wood wood+;o 7 93 5 5 wood wood-;l 5.5 10 90 24 76 "
    "plain dark",
    "baseball glove": "b 12 60 8 26 18 20 26 44 26 8 38 6 42 40 46 4 58 4 58 40 66 8 78 12 74 50 92 40 96 52 78 86 44 98 20 88 "
    "leather clay;r 2 50 66 18 16 leather clay-;p 62 52 82 34 86 56 74 68 leather brown;g 1 8 3 1 66 54 80 48 plain cream",
    "skateboard": "c 7 2 42 14 54 86 54 98 42 wood A;l 4 24 58 24 66 metal steel;l 4 76 58 76 66 metal steel;d 7 2 18 70 32 70 "
    "gloss cream;d 7 2 68 70 82 70 gloss cream;d 2.5 4 18 70 82 70 plain dark",
    "surfboard": "b 50 -2 66 20 70 56 62 94 50 102 38 94 30 56 34 20 gloss white;b 44 10 56 10 60 56 56 96 44 96 40 56 gloss A;"
    "l 1.5 50 0 50 100 plain B;p 46 80 54 80 50 92 plain dark",
    "tennis racket": "r 5 50 28 24 28 gloss A;g .4 26 9 1 34 28 66 28 plain white;g 22 .4 1 11 50 8 50 48 plain white;"
    "l 4 38 52 50 68 gloss A;l 4 62 52 50 68 gloss A;l 6 50 68 50 100 leather dark",
    "bottle": "b 34 96 34 44 40 32 44 20 44 6 56 6 56 20 60 32 66 44 66 96 glass A;x 34 54 66 80 1 text white;x 43 0 57 8 2 metal "
    "B;l 2 39 46 39 52 plain white|b 36 98 34 60 38 50 36 40 44 24 44 10 56 10 56 24 64 40 62 50 66 60 64 98 glass glass;x 35 "
    "46 65 64 1 gloss A;x 42 2 58 12 2 gloss A",
    "wine glass": "l 3 50 54 50 92 glass glass+;o 50 94 20 4 glass glass+;b 28 6 72 6 74 28 62 50 50 56 38 50 26 28 glass "
    "glass+;b 27 24 73 24 72 34 62 49 50 54 38 49 28 34 glass wine;r 1 50 6 22 3 plain white",
    "cup": "r 7 78 50 16 18 gloss A;b 16 20 80 20 76 84 66 94 30 94 20 84 gloss A;o 48 20 32 8 gloss A+;o 48 21 27 6 plain brown;"
    "l 3 18 44 78 44 gloss B",
    "fork": "l 5 50 98 50 44 metal steel;b 36 22 64 22 62 38 52 48 48 48 38 38 metal steel;g 2.6 13 4 1 38 14 62 14 metal steel",
    "knife": "x 44 58 56 98 5 wood dark;b 44 60 44 6 48 0 58 20 60 60 metal steel;d 1.5 3 50 66 50 90 metal steel;l 1 46 56 46 10 "
    "plain white",
    "spoon": "l 5 50 98 50 32 metal steel;o 50 18 14 19 metal steel;o 50 19 9 14 metal steel-",
    "bowl": "b 4 34 96 34 84 66 66 84 34 84 16 66 gloss A;o 50 34 46 13 gloss A+;o 50 35 40 10 crust cream;l 4 10 50 90 50 gloss B;"
    "x 36 82 64 90 2 gloss A-",
    "banana": "b 8 30 14 56 34 78 64 82 92 70 94 64 66 66 40 56 24 38 18 24 plain yellow;c 2 14 34 34 64 64 74 92 67 plain yellow-;"
    "l 5 12 28 10 18 plain brown;o 94 67 3 4 plain dark",
    "apple": "c 3 50 24 52 12 58 4 wood brown;b 54 14 66 4 82 8 68 18 leaf green;b 50 24 66 16 88 26 92 52 78 84 62 95 50 91 38 95 22 "
    "84 8 52 12 26 34 16 gloss fruit;b 40 24 50 22 60 24 50 30 plain brown",
    "sandwich": "p 6 70 92 70 92 84 6 84 crust cream;b 2 62 20 70 34 62 50 70 66 62 82 70 96 62 96 56 2 56 leaf green;x 6 52 92 60 2 "
    "gloss yellow;x 8 44 92 53 3 plain pink;b 2 40 14 34 50 42 84 34 96 44 80 48 20 48 gloss red;p 6 30 92 30 92 42 6 42 crust "
    "cream;b 4 32 10 18 88 18 94 32 crust clay",
    "orange": "o 50 50 46 46 peel orange;d 3 1 50 9 50 9 plain green;p 50 8 70 -4 74 8 leaf green|o 50 50 46 46 peel orange;o 50 50 40 "
    "40 plain cream;o 50 50 37 37 peel orange+;l 2 50 13 50 87 plain cream;l 2 13 50 87 50 plain cream;l 2 24 24 76 76 plain "
    "cream;l 2 76 24 24 76 plain cream",
    "broccoli": "b 40 54 60 54 66 98 36 98 plain sprout;l 8 44 70 28 52 plain sprout;l 8 58 70 74 52 plain sprout;o 24 42 20 18 floret "
    "green;o 76 42 20 18 floret green;o 50 24 26 22 floret green;o 50 46 26 16 floret green-",
    "carrot": "b 20 32 6 6 26 14 34 2 38 18 52 8 42 34 leaf green;b 30 24 44 30 76 72 98 98 68 80 24 44 22 32 plain orange;l 1 40 40 "
    "48 34 plain brown;l 1 52 58 60 50 plain brown;l 1 66 70 72 66 plain brown",
    "hot dog": "b 4 56 12 36 88 36 96 56 88 68 12 68 crust clay;b 0 48 6 40 94 40 100 48 94 56 6 56 gloss red;c 3 8 46 20 50 32 43 44 "
    "50 56 43 68 50 80 43 92 48 plain yellow;b 4 58 12 54 88 54 96 58 86 76 14 76 crust cream",
    "pizza": "o 50 50 48 40 crust clay;o 50 50 41 33 crust cream;d 7 3 30 38 72 36 plain red;d 7 3 26 60 74 62 plain red;d 6 2 46 26 56 "
    "74 plain red;d 2.5 4 38 50 66 46 leaf green;l 1 50 50 94 66 plain brown;l 1 50 50 92 28 plain brown|b 4 16 50 4 96 16 92 24 50 "
    "14 8 24 crust clay;p 8 22 50 14 92 22 50 98 crust yellow;d 8 2 36 32 62 32 plain red;d 7 1 50 56 50 56 plain red;d 3 2 44 44 "
    "58 70 leaf green",
    "donut": "r 28 50 50 32 28 crust clay;r 24 50 47 32 27 gloss A;d 1.6 4 18 40 40 22 plain yellow;d 1.6 4 60 22 84 44 plain white;"
    "d 1.6 4 22 62 46 74 plain blue;d 1.6 3 58 74 80 58 plain red",
    "cake": "o 50 88 48 9 gloss white;p 10 44 90 44 88 86 12 86 crust clay;l 4 10 64 90 64 plain cream;b 8 44 50 32 92 44 90 58 80 50 70 "
    "62 58 52 46 62 34 50 22 60 10 56 gloss A;g 1.4 8 4 1 26 28 74 28 plain B;d 2.2 4 26 17 74 17 glow yellow",
    "chair": _CHAIR,
    "couch": "x 6 18 94 66 9 fabric A;x 0 36 16 86 7 fabric A-;x 84 36 100 86 7 fabric A-;x 14 52 50 72 5 fabric A+;x 50 52 86 72 5 "
    "fabric A+;x 14 70 86 86 2 fabric A-;l 5 10 86 10 94 wood wood;l 5 90 86 90 94 wood wood;x 22 34 40 54 4 striped B",
    "potted plant": "c~12 2.5 50 66 42 40 24 18 plain green;c~12 2.5 50 66 56 36 72 10 plain green;b 50 60 30 48 10 50 28 38 48 52 leaf "
    "green-;b 50 62 36 36 18 22 20 8 40 26 leaf green;b 50 62 64 36 86 20 84 8 60 24 leaf green+;b 50 62 70 52 94 50 76 40 54 48 "
    "leaf green-;b 48 60 40 26 50 -2 60 26 52 60 leaf green+;p 28 66 72 66 64 98 36 98 plain clay;x 24 60 76 71 3 plain clay+",
    "bed": "x 2 10 14 88 3 wood wood;x 88 38 98 88 3 wood wood;p 12 52 92 52 96 78 6 78 fabric white;p 34 48 92 50 94 82 30 82 plaid A;"
    "b 12 52 14 42 32 42 34 52 fabric white;x 6 76 96 84 2 wood wood-",
    "dining table": "l 5 26 46 24 80 wood wood-;l 5 76 46 78 80 wood wood-;p 20 28 80 28 99 46 1 46 wood wood+;x 1 45 99 53 1 wood "
    "wood;l 7 8 50 8 98 wood wood;l 7 92 50 92 98 wood wood;o 36 37 11 4 gloss white;o 64 38 11 4 gloss white;x 47 20 53 36 2 "
    "glass A|p 24 98 76 98 56 88 44 88 wood wood-;x 44 50 56 92 2 wood wood;o 50 44 49 16 wood wood-;o 50 41 49 15 wood wood+;"
    "o 34 40 10 4 gloss white;o 62 44 11 4 gloss white;b 44 36 46 22 54 22 56 36 gloss A",
    "toilet": "x 56 2 90 48 4 gloss white;x 54 0 92 8 2 gloss white+;l 3 60 14 66 14 metal steel;p 26 60 80 60 70 96 38 96 gloss white;"
    "b 8 46 40 40 82 44 84 56 62 76 30 74 12 62 gloss white;o 44 48 36 9 gloss white+;o 44 48 26 6 glass glass",
    "tv": "x 2 8 98 76 3 plain dark;x 6 12 94 71 1 picture B;p 40 76 60 76 70 88 30 88 plain dark;d 1 3 82 73.5 92 73.5 glow lamp|"
    "l 2 40 12 26 -8 metal steel;l 2 54 12 70 -8 metal steel;x 4 10 96 88 7 wood wood;x 12 18 70 80 8 picture B;d 4 2 83 30 83 46 "
    "metal steel;g 6 1 1 4 83 60 83 74 plain dark;l 4 16 88 12 98 wood wood-;l 4 84 88 88 98 wood wood-",
    "laptop": "p 14 6 84 6 84 62 14 62 metal steel;p 18 10 80 10 80 58 18 58 picture B;p 14 62 84 62 100 88 -2 88 metal steel+;"
    "p 18 65 80 65 88 78 10 78 plain dark;g 28 .6 1 3 49 68 49 75 metal grey;p 40 80 58 80 60 86 38 86 metal grey;l 2 -2 89 100 89 "
    "metal grey",
    "mouse": "c 2 50 14 46 0 58 -10 plain dark;b 24 60 26 24 50 10 74 24 76 60 70 88 50 97 30 88 gloss dark+;l 1.5 50 12 50 46 plain "
    "steel;c 1.5 25 48 50 52 75 48 plain steel;x 46 22 54 40 4 metal steel",
    "remote": "x 34 0 66 100 9 plain dark;d 4 1 42 9 42 9 glow red;g 3 2.6 3 6 42 24 58 70 gloss grey;r 4 50 84 9 9 gloss steel",
    "keyboard": "p 6 26 94 26 100 76 0 76 plain dark+;g 2.6 4 13 4 9 33 91 62 gloss white;x 28 66 70 73 1 gloss white;g 4 3.4 2 1 10 70 "
    "18 70 gloss white;g 4 3.4 2 1 80 70 90 70 gloss white",
    "cell phone": "x 26 0 74 100 7 plain dark;x 29 9 71 88 1 picture B;g 3 3 4 4 35 20 65 60 gloss A;o 50 94 3.5 3.5 metal steel;"
    "l 1.5 44 5 56 5 metal steel",
    "microwave": "x 0 20 100 80 3 metal steel;x 5 26 70 74 2 plain dark;x 12 33 62 67 2 glass dark+;l 3 73 30 73 70 metal white;x 78 26 "
    "96 36 1 glow lamp;g 2.4 2.6 3 4 81 44 93 70 plain dark",
    "oven": "x 8 0 92 98 2 metal white;d 4 5 20 20 80 20 plain dark;x 14 32 86 78 3 plain dark;x 22 42 78 70 2 glass clay;l 4 18 36 82 36 "
    "metal steel;p 10 0 90 0 86 10 14 10 plain dark;r 1.5 32 5 12 3 metal red;r 1.5 68 5 12 3 metal red;l 2 12 86 88 86 metal grey",
    "toaster": "x 24 6 44 40 5 crust clay;x 54 2 74 40 5 crust clay;b 4 84 6 34 20 24 80 24 94 34 96 84 metal steel;x 14 26 86 31 1 plain "
    "dark;x 2 82 98 92 2 plain dark;l 5 92 42 99 42 plain dark;o 82 68 5 5 plain dark;l 2 14 46 70 46 metal white",
    "sink": "c 5 52 40 52 4 66 2 72 18 metal steel;l 4 38 36 38 26 metal steel;l 4 32 25 44 25 metal steel;b 2 40 98 40 90 76 70 90 30 90 "
    "10 76 gloss white;o 50 42 48 13 gloss white+;o 50 44 40 9 gloss grey;o 50 47 5 2 plain dark",
    "refrigerator": "x 20 0 80 97 3 metal steel;l 2 20 34 80 34 plain dark;l 3 27 10 27 28 metal dark;l 3 27 42 27 74 metal dark;"
    "x 24 97 76 101 1 plain dark;x 50 44 64 58 1 picture B;d 2 3 48 14 66 20 gloss A",
    "book": "p 50 22 96 14 96 78 50 88 text white;p 50 22 4 14 4 78 50 88 text white;l 2 50 22 50 88 plain grey;c 3 3 79 50 90 97 79 gloss A|"
    "p 20 8 70 2 74 86 24 94 gloss A;p 24 94 74 86 80 90 32 99 text white;p 20 8 28 7 32 93 24 94 gloss A-;p 36 20 64 16 65 30 38 34 "
    "text cream;o 54 56 12 14 gloss B",
    "clock": "o 50 50 47 47 gloss A;o 50 50 40 40 plain white;d 2 2 50 15 50 85 plain dark;d 2 2 15 50 85 50 plain dark;d 1.3 2 32 20 68 80 "
    "plain dark;d 1.3 2 80 32 20 68 plain dark;d 1.3 2 20 32 80 68 plain dark;d 1.3 2 68 20 32 80 plain dark;l~180 4 50 50 50 28 plain "
    "dark;l~180 2.5 50 50 50 18 plain dark;o 50 50 3.5 3.5 plain red",
    "vase": "c 1.5 50 30 40 8 30 -6 plain green;c 1.5 50 30 54 0 52 -14 plain green;c 1.5 50 30 64 10 74 0 plain green;d 7 1 30 -8 30 -8 "
    "floret red;d 7 1 52 -16 52 -16 floret pink;d 7 1 74 -2 74 -2 floret yellow;b 40 26 60 26 56 40 76 60 72 86 60 98 40 98 28 86 24 60 "
    "44 40 gloss A;b 25 60 50 54 75 60 74 68 50 62 26 68 gloss B;o 50 26 11 3 gloss A-",
    "scissors": "p 50 56 76 4 80 8 56 62 metal steel;p 50 56 24 4 20 8 44 62 metal steel+;l 4 48 58 36 74 gloss A;l 4 52 58 64 74 gloss A;"
    "r 6 28 84 11 13 gloss A;r 6 72 84 11 13 gloss A;o 50 58 3 3 metal dark",
    "teddy bear": "o 30 88 14 11 wool clay;o 70 88 14 11 wool clay;o 50 68 24 24 wool clay;o 50 70 14 15 wool cream;l~30 13 32 56 16 72 "
    "wool clay;l~30 13 68 56 84 72 wool clay;d 9 2 30 12 70 12 wool clay-;o 50 28 24 22 wool clay;o 50 36 11 8 wool cream;o 50 33 4 3 "
    "plain dark;d 2.6 2 41 24 59 24 plain dark;p 50 50 36 44 36 56 gloss A;p 50 50 64 44 64 56 gloss A;d 5 2 30 90 70 90 plain cream",
    "hair drier": "p 34 44 54 44 62 96 44 96 gloss A-;x 10 14 70 48 16 gloss A;p 66 18 96 12 96 50 66 44 plain dark;r 3 26 31 9 10 metal "
    "grey;x 44 58 52 66 1 plain dark;c 2 54 96 60 106 80 102 plain dark",
    "toothbrush": "c 5 50 102 48 60 50 30 50 4 gloss A;l 7 49 98 48 62 gloss A;g 3.4 2.1 1 5 55 5 55 24 fabric white;g 3.4 1 1 2 55 10 55 "
    "20 plain blue",
    # of Cityscapes only
    "pedestrian": _STANDING,
    "rider": f"{_BICYCLE};{_SEATED.replace('-6', '-2')}|{_MOTORCYCLE};{_SEATED}",
    "traffic sign": "l 4 50 40 50 100 metal steel;o 50 26 24 24 plain red;o 50 26 17 17 plain white;x 38 23 62 29 1 plain dark|"
    "l 4 50 40 50 100 metal steel;p 50 0 78 48 22 48 plain red;p 50 12 68 42 32 42 plain white;l 4 50 22 50 36 plain dark|"
    "l 4 50 40 50 100 metal steel;x 26 4 74 50 3 plain blue;p 50 10 66 30 56 30 56 44 44 44 44 30 34 30 plain white",
}
COLOURS |= {
    "lamp": "50e060 60f0d0",
    "wine": "701828 e8d890",
    "fruit": "c0202a 7ab030 d04028 98c040",
    "sprout": "a8c878",
}
