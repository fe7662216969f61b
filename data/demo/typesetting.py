"""A sheet of paper that is printed on from top to bottom: fonts, words, paragraphs, headings, rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.demo.assets import shipped_file

SCALE = 2
"""Pages are drawn so many times larger and then averaged, as a scanner does: letters fall between pixels."""

FAMILIES = {
    # regular, bold, italic
    "sans": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique"),
    "serif": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    "book": ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
    "typewriter": ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique"),
}
REGULAR, BOLD, ITALIC = range(3)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]

INKS: tuple[Colour, ...] = ((12, 12, 14), (28, 26, 30), (22, 24, 48), (44, 36, 30))
ACCENTS: tuple[Colour, ...] = ((150, 28, 28), (24, 60, 130), (20, 92, 60), (12, 12, 14))


@lru_cache(maxsize=256)
def font(family: str, style: int, size: int) -> Font:
    # Pillow's own font has one style.
    if family == "pillow":
        return ImageFont.load_default(size)
    file = shipped_file(f"matplotlib/mpl-data/fonts/ttf/{FAMILIES[family][style]}.ttf")
    return ImageFont.truetype(str(file), size)


@dataclass
class Sheet:
    """A page being drawn from top to bottom; lengths are in pixels of the large drawing."""

    image: Image.Image
    pen: ImageDraw.ImageDraw
    rng: np.random.Generator
    passages: Sequence[str]
    family: str
    size: int
    ink: Colour
    accent: Colour
    left: int
    right: int
    y: float

    @classmethod
    def empty(cls, height: int, width: int, passages: Sequence[str], rng: np.random.Generator) -> "Sheet":
        image = Image.new("RGB", (width * SCALE, height * SCALE), "white")
        margin = int(rng.integers(10, 26)) * SCALE
        return cls(
            image=image,
            pen=ImageDraw.Draw(image),
            rng=rng,
            passages=passages,
            family=str(rng.choice(["sans", "serif", "serif", "book", "book", "pillow"])),
            size=int(rng.integers(11, 18)) * SCALE,
            ink=INKS[rng.integers(len(INKS))],
            accent=ACCENTS[rng.integers(len(ACCENTS))],
            left=margin,
            right=width * SCALE - margin,
            y=float(rng.integers(6, 22) * SCALE),
        )

    @property
    def bottom(self) -> int:
        return self.image.height

    def words(self) -> list[str]:
        """Words of a passage, from the start of any of its sentences on, once round."""
        # Pillow's own font has no accented letters.
        printable = [text for text in self.passages if self.family != "pillow" or text.isascii()]
        words = printable[self.rng.integers(len(printable))].split()
        starts = [0, *(i + 1 for i, word in enumerate(words[:-1]) if word.endswith("."))]
        start = int(self.rng.choice(starts))
        return words[start:] + words[:start]

    def write(
        self, x: float, text: str, style: int = REGULAR, size: int = 0, colour: Colour | None = None
    ) -> None:
        self.pen.text(
            (x, self.y), text, fill=colour or self.ink, font=font(self.family, style, size or self.size)
        )

    def length(self, text: str, style: int = REGULAR, size: int = 0) -> float:
        return float(font(self.family, style, size or self.size).getlength(text))

    def down(self, lines: float = 1.0, size: int = 0) -> None:
        self.y += 1.3 * lines * (size or self.size)

    def rule(self, thickness: float = 1.0, left: float | None = None, right: float | None = None) -> None:
        ends = [
            (self.left if left is None else left, self.y),
            (self.right if right is None else right, self.y),
        ]
        self.pen.line(ends, fill=self.ink, width=max(1, round(thickness * SCALE)))

    def paragraph(
        self, words: Sequence[str], indent: float = 0.0, justify: bool = True, until: float = 1e9
    ) -> None:
        """Sets words in lines between left and right until they, or the page, or the height `until` end."""
        rest, start = list(words), self.left + indent
        while rest and self.y < min(self.bottom, until):
            count = 1
            while count < len(rest) and self.length(" ".join(rest[: count + 1])) <= self.right - start:
                count += 1
            line, rest = rest[:count], rest[count:]
            gap = self.length(" ")
            if justify and rest and count > 1:
                gap = (self.right - start - sum(map(self.length, line))) / (count - 1)
            x = start
            for word in line:
                self.write(x, word)
                x += self.length(word) + gap
            start = self.left
            self.down()

    def heading(self, text: str, centred: bool = False) -> None:
        size = int(self.size * self.rng.uniform(1.25, 1.8))
        while self.length(text, BOLD, size) > self.right - self.left and size > self.size:
            size -= 1
        room = self.right - self.left - self.length(text, BOLD, size)
        self.write(self.left + (room / 2 if centred else 0), text, BOLD, size, self.accent)
        self.down(1.1, size)

    def title(self, most: int = 4) -> str:
        words = self.words()[: int(self.rng.integers(2, most + 1))]
        return " ".join(words).strip(".,;:").capitalize()

    def number(self) -> str:
        return f"{self.rng.uniform(0, 10 ** self.rng.integers(1, 5)):,.{self.rng.integers(0, 3)}f}"
