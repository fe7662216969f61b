"""Rendered pages of several kinds: letters, books, tables, forms, figures, all with text of their own."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from data.demo.typesetting import BOLD, ITALIC, REGULAR, SCALE, Sheet, font
from data.files import Pixels


def render_page(
    height: int, width: int, passages: Sequence[str], layout: int, rng: np.random.Generator
) -> Pixels:
    """A clean page (height, width, 3), uint8, black or coloured on white, with text from `passages`.

    `layout` counts through the kinds of pages; sizes, fonts, inks and the choice of text come from `rng`.
    """
    sheet = Sheet.empty(height, width, passages, rng)
    LAYOUTS[layout % len(LAYOUTS)](sheet)
    small = sheet.image.resize((width, height), Image.Resampling.BOX)
    return np.asarray(small)


def _book(sheet: Sheet) -> None:
    sheet.family = str(sheet.rng.choice(["book", "serif"]))
    folio = str(sheet.rng.integers(9, 400))
    sheet.write((sheet.left + sheet.right - sheet.length(folio)) / 2, folio)
    sheet.down(1.6)
    while sheet.y < sheet.bottom:
        sheet.paragraph(sheet.words(), indent=1.5 * sheet.size)


def _article(sheet: Sheet) -> None:
    sheet.size = int(sheet.rng.integers(10, 13)) * SCALE
    sheet.heading(sheet.title(5), centred=True)
    sheet.rule(0.7)
    sheet.down(0.6)
    top, left, right = sheet.y, sheet.left, sheet.right
    middle, gutter = (left + right) // 2, sheet.size
    for column in range(2):
        sheet.left = left if column == 0 else middle + gutter // 2
        sheet.right, sheet.y = (middle - gutter // 2 if column == 0 else right), top
        while sheet.y < sheet.bottom:
            sheet.paragraph(sheet.words(), indent=sheet.size)


def _letter(sheet: Sheet) -> None:
    sheet.heading(sheet.title(3), centred=bool(sheet.rng.random() < 0.5))
    sheet.rule(1.2)
    sheet.down(0.7)
    date = f"{sheet.rng.integers(1, 29)}. {sheet.rng.integers(1, 13)}. {sheet.rng.integers(1890, 2020)}"
    sheet.write(sheet.right - sheet.length(date, ITALIC), date, ITALIC)
    sheet.down(1.8)
    sheet.paragraph(sheet.words(), justify=False, until=sheet.bottom - 4.5 * sheet.size)
    _signature(sheet, sheet.left + sheet.rng.uniform(0.3, 0.5) * (sheet.right - sheet.left))


def _signature(sheet: Sheet, x: float) -> None:
    """A scribble in pen, wide loops that run to the right."""
    steps = np.linspace(0, 1, 160)
    waves = sheet.rng.uniform(3, 6), sheet.rng.uniform(6, 11)
    phases = sheet.rng.uniform(0, 2 * np.pi, 2)
    height = 0.8 * sheet.size * (1.1 - steps) * np.sin(2 * np.pi * waves[0] * steps + phases[0])
    sway = 0.35 * sheet.size * np.sin(2 * np.pi * waves[1] * steps + phases[1])
    across = x + 5.5 * sheet.size * steps + sway
    points = list(zip(across.tolist(), (sheet.y + sheet.size + height).tolist(), strict=True))
    sheet.pen.line(points, fill=(30, 40, 120), width=round(0.9 * SCALE), joint="curve")


def _table(sheet: Sheet) -> None:
    sheet.size = int(sheet.rng.integers(10, 15)) * SCALE
    sheet.heading("Table " + str(sheet.rng.integers(1, 30)) + ". " + sheet.title(3))
    columns = int(sheet.rng.integers(2, 5))
    first = 0.38 * (sheet.right - sheet.left)
    step = (sheet.right - sheet.left - first) / columns
    ruled, words = sheet.rng.random() < 0.5, sheet.words()
    top, row = sheet.y, 0
    sheet.rule(1.3)
    while sheet.y < sheet.bottom:
        sheet.y += 0.25 * sheet.size
        style = BOLD if row == 0 else REGULAR
        label = words[row % len(words)].strip(".,;:")[:11]
        sheet.write(sheet.left + 4, label, style)
        for column in range(columns):
            text = (
                words[(7 * column + 3) % len(words)].strip(".,;:")[:5]
                if row == 0
                else sheet.number()[:6].rstrip(".,")
            )
            edge = sheet.left + first + (column + 1) * step - 6
            sheet.write(edge - sheet.length(text, style), text, style)
        sheet.down()
        if ruled or row == 0:
            sheet.rule(0.8)
        row += 1
    if ruled:
        for column in range(columns + 1):
            x = sheet.left + first + column * step
            sheet.pen.line([(x, top), (x, sheet.bottom)], fill=sheet.ink, width=SCALE)


def _form(sheet: Sheet) -> None:
    sheet.family = str(sheet.rng.choice(["sans", "pillow"]))
    sheet.heading("Form " + str(sheet.rng.integers(10, 99)) + " " + sheet.title(2))
    words = [word.strip(".,;:()").capitalize() for word in sheet.words()]
    while sheet.y < sheet.bottom:
        label, entry = " ".join(words[:2]), " ".join(words[2:5])
        words = words[5:] + words[:5]
        if sheet.rng.random() < 0.3:
            for x in (sheet.left, (sheet.left + sheet.right) / 2):
                box = (x, sheet.y + 0.1 * sheet.size, x + 0.9 * sheet.size, sheet.y + sheet.size)
                sheet.pen.rectangle(box, outline=sheet.ink, width=SCALE)
                if sheet.rng.random() < 0.5:
                    sheet.pen.line([box[:2], box[2:]], fill=(30, 40, 120), width=2 * SCALE)
                    sheet.pen.line([(box[0], box[3]), (box[2], box[1])], fill=(30, 40, 120), width=2 * SCALE)
                sheet.write(x + 1.4 * sheet.size, words[int(sheet.rng.integers(len(words)))][:9])
        else:
            sheet.write(sheet.left, label + ":", BOLD)
            x = sheet.left + sheet.length(label + ": ", BOLD)
            typed = font("typewriter", REGULAR, sheet.size)
            sheet.pen.text((x + 6, sheet.y - 2), entry, fill=(40, 40, 46), font=typed)
            sheet.y += 1.15 * sheet.size
            sheet.rule(0.6, left=x)
            sheet.y -= 1.15 * sheet.size
        sheet.down(1.45)


def _list(sheet: Sheet) -> None:
    sheet.heading(sheet.title(4))
    left, number = sheet.left, 1
    while sheet.y < sheet.bottom:
        sheet.left = left
        sheet.write(left, f"{number}.", BOLD, colour=sheet.accent)
        sheet.left = int(left + 1.8 * sheet.size)
        sheet.paragraph(sheet.words()[: int(sheet.rng.integers(8, 20))], justify=False)
        sheet.down(0.3)
        number += 1


def _typewriter(sheet: Sheet) -> None:
    sheet.family, sheet.size = "typewriter", int(sheet.rng.integers(10, 15)) * SCALE
    title = sheet.title(3).upper()
    sheet.write(sheet.left, title)
    sheet.down(0.95)
    sheet.rule(0.8, right=sheet.left + sheet.length(title))
    sheet.down(0.8)
    while sheet.y < sheet.bottom:
        sheet.paragraph(sheet.words(), indent=3 * sheet.size, justify=False)
        sheet.down(0.6)


def _figure(sheet: Sheet) -> None:
    """A chart with its axes and caption, and text below."""
    sheet.size = int(sheet.rng.integers(10, 14)) * SCALE
    height, foot = 0.5 * sheet.bottom, sheet.y + 0.5 * sheet.bottom
    left, right = sheet.left + 2 * sheet.size, sheet.right
    count = int(sheet.rng.integers(5, 11))
    values = np.abs(np.cumsum(sheet.rng.normal(0, 1, count))) + 0.3
    values = values / values.max() * 0.9 * height
    step = (right - left) / count
    if sheet.rng.random() < 0.5:
        for i, value in enumerate(values):
            bar = (left + (i + 0.2) * step, foot - value, left + (i + 0.8) * step, foot)
            sheet.pen.rectangle(
                bar, fill=sheet.accent if i % 2 else (150, 150, 150), outline=sheet.ink, width=SCALE
            )
    else:
        curve = [(left + (i + 0.5) * step, foot - value) for i, value in enumerate(values.tolist())]
        sheet.pen.line(curve, fill=sheet.accent, width=2 * SCALE)
        for x, y in curve:
            sheet.pen.ellipse((x - 6, y - 6, x + 6, y + 6), fill="white", outline=sheet.ink, width=SCALE)
    sheet.pen.line([(left, sheet.y), (left, foot), (right, foot)], fill=sheet.ink, width=round(1.2 * SCALE))
    for share in (0.0, 0.5, 1.0):
        sheet.y = foot - share * height * 0.9 - 0.5 * sheet.size
        sheet.write(sheet.left, f"{share * 20:.0f}", size=int(0.8 * sheet.size))
    sheet.y = foot + 0.5 * sheet.size
    sheet.write(sheet.left, f"Fig. {sheet.rng.integers(1, 40)}. ", BOLD)
    sheet.paragraph(sheet.words(), indent=sheet.length("Fig. 000 ", BOLD))


def _notice(sheet: Sheet) -> None:
    """A dark banner with white letters, a framed notice and large type."""
    sheet.size = int(sheet.rng.integers(15, 23)) * SCALE
    text = sheet.title(3).upper()
    size = min(
        int(1.3 * sheet.size),
        int(1.3 * sheet.size * 0.9 * sheet.image.width / sheet.length(text, BOLD, int(1.3 * sheet.size))),
    )
    sheet.pen.rectangle((0, 0, sheet.image.width, sheet.y + 1.9 * size), fill=sheet.accent)
    sheet.y += 0.3 * size
    sheet.write((sheet.image.width - sheet.length(text, BOLD, size)) / 2, text, BOLD, size, (255, 255, 255))
    sheet.down(1.9, size)
    sheet.paragraph(sheet.words(), justify=False)


LAYOUTS: tuple[Callable[[Sheet], None], ...] = (
    _book,
    _table,
    _letter,
    _article,
    _form,
    _typewriter,
    _list,
    _figure,
    _notice,
)
