# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The Triton kernels of kernel basis attention; imported only where Triton is installed.

For a tile of pixels P and one group of D channels, with its bases W as a matrix (D * k^2, D * N):

    filtered    = patches @ W + bias                        (P, D * N), on the matrix units
    result      = sum over n: attention * filtered          (P, D), in registers

and backwards, with M = attention * d_result as a matrix (P, D * N):

    d_attention = sum over groups and channels: d_result * filtered
    d_x         = M @ W transposed, every patch added back to its place
    d_weight    = M transposed @ patches, with a one beside each patch for the bias

Per pixel nothing larger than the images is written to memory. Nothing is added atomically: the same call
gives the same bits. Products in the type asked for, sums in float32. Numbers beyond the bases, the channels
of a group or the image are padded up to powers of two, as zeros.
"""

import os
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # on the CPU, in numpy: slow, for tests
_INTERPRETED = tl.constexpr(INTERPRETED)


def _tuned(*choices: tuple[dict[str, int], int]) -> Callable[[Any], Any]:
    """The fastest of these tile sizes and numbers of warps, measured once per kind of call and kept on disk."""
    configs = [triton.Config(sizes, num_warps=warps) for sizes, warps in choices]
    key = ["scale", "depth", "num_bases", "kernel_size", "products"]
    return triton.autotune(configs[:1] if INTERPRETED else configs, key, cache_results=True)  # type: ignore[no-any-return]


@triton.jit
def _dot(left, right, total, products: tl.constexpr):
    """total + left @ right"""
    if products == "bf16":
        left, right = left.to(tl.bfloat16), right.to(tl.bfloat16)
        if _INTERPRETED:  # numpy has no such type: its products are exact in float32
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total)
    elif products == "fp16":
        total = tl.dot(left.to(tl.float16), right.to(tl.float16), total)
    else:
        total = tl.dot(left.to(tl.float32), right.to(tl.float32), total, input_precision=products)
    return total


@triton.jit
def _locate(tile, batch, height, width, pixels: tl.constexpr):
    """Image, row, column and validity of the pixels of a tile."""
    at = tile * pixels + tl.arange(0, pixels)
    area = height * width
    image, within = at // area, at % area
    return image.to(tl.int64), within // width, within % width, image < batch


@triton.jit
def _offsets(image, y, x, stride_b, stride_y, stride_x):
    """Offsets of the numbers of channel 0. Large images need more than 32 bits."""
    return image * stride_b + y.to(tl.int64) * stride_y + x.to(tl.int64) * stride_x


@triton.jit
def _channels(start, at, valid, first, limit, stride, padded: tl.constexpr):
    """(P, padded) float32: channels `first` and up, `limit` of them, at the offsets `at` (P)."""
    index = tl.arange(0, padded)
    where = at[:, None] + ((first + index).to(tl.int64) * stride)[None, :]
    return tl.load(start + where, valid[:, None] & (index < limit)[None, :], 0.0).to(tl.float32)


@triton.jit
def _patches(
    start, at, y, x, valid, first, height, width, stride_c, stride_y, stride_x, entry,
    depth: tl.constexpr, kernel_size: tl.constexpr,
):  # fmt: skip
    """(P, entries) in the type of the image: the neighbourhood of each pixel, zeros outside; beyond it, zeros."""
    area: tl.constexpr = kernel_size * kernel_size
    channel, tap = entry // area, entry % area
    dy, dx = tap // kernel_size - kernel_size // 2, tap % kernel_size - kernel_size // 2
    offset = (
        (first + channel).to(tl.int64) * stride_c + dy.to(tl.int64) * stride_y + dx.to(tl.int64) * stride_x
    )
    row, column = y[:, None] + dy[None, :], x[:, None] + dx[None, :]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    inside = inside & valid[:, None] & (entry < depth * area)[None, :]
    return tl.load(start + at[:, None] + offset[None, :], inside, 0.0)


@triton.jit
def _filtered(
    image, at, y, x, valid, weight, bias, group, channels, height, width, stride_c, stride_y, stride_x,
    depth: tl.constexpr, num_bases: tl.constexpr, kernel_size: tl.constexpr, products: tl.constexpr,
    pixels: tl.constexpr, wide: tl.constexpr, bases: tl.constexpr, step: tl.constexpr,
):  # fmt: skip
    """(P, wide, bases) float32: what each basis of the group makes of each pixel, bias included."""
    patch: tl.constexpr = depth * kernel_size * kernel_size
    column = tl.arange(0, wide * bases)
    o, n = column // bases, column % bases
    exists = (o < depth) & (n < num_bases)
    channel = n * channels + group * depth + o
    start = tl.load(bias + channel, exists, 0.0).to(tl.float32)
    total = tl.zeros((pixels, wide * bases), tl.float32) + start[None, :]
    for first in tl.static_range(0, patch, step):
        entry = first + tl.arange(0, step)
        left = _patches(
            image, at, y, x, valid, group * depth, height, width, stride_c, stride_y, stride_x, entry,
            depth, kernel_size,
        )  # fmt: skip
        where = entry[:, None] + (channel * patch)[None, :]
        right = tl.load(weight + where, (entry < patch)[:, None] & exists[None, :], 0.0)
        total = _dot(left, right, total, products)
    return tl.reshape(total, (pixels, wide, bases))


@_tuned(
    ({"pixels": 64, "step": 16, "share": 4}, 4),
    ({"pixels": 64, "step": 64, "share": 1}, 4),
    ({"pixels": 128, "step": 16, "share": 1}, 8),
    ({"pixels": 128, "step": 64, "share": 4}, 8),
    ({"pixels": 32, "step": 16, "share": 1}, 4),
)
@triton.jit(do_not_specialize=["scale"])
def forward_kernel(
    x, attention, weight, bias, result, batch, channels, height, width, groups,
    xb, xc, xy, xx, ab, an, ay, ax, rb, rc, ry, rx, scale,
    depth: tl.constexpr, num_bases: tl.constexpr, kernel_size: tl.constexpr, products: tl.constexpr,
    wide: tl.constexpr, bases: tl.constexpr, pixels: tl.constexpr, step: tl.constexpr, share: tl.constexpr,
):  # fmt: skip
    image, row, column, valid = _locate(tl.program_id(0), batch, height, width, pixels)
    mix = _channels(attention, _offsets(image, row, column, ab, ay, ax), valid, 0, num_bases, an, bases)
    at, to = _offsets(image, row, column, xb, xy, xx), _offsets(image, row, column, rb, ry, rx)
    o = tl.arange(0, wide)
    first = tl.program_id(1) * share
    for group in range(first, tl.minimum(first + share, groups)):
        filtered = _filtered(
            x, at, row, column, valid, weight, bias, group, channels, height, width, xc, xy, xx,
            depth, num_bases, kernel_size, products, pixels, wide, bases, step,
        )  # fmt: skip
        mixed = tl.sum(filtered * mix[:, None, :], 2)
        where = to[:, None] + ((group * depth + o).to(tl.int64) * rc)[None, :]
        tl.store(result + where, mixed, valid[:, None] & (o < depth)[None, :])


@_tuned(
    ({"pixels": 64, "step": 16}, 4),
    ({"pixels": 64, "step": 64}, 4),
    ({"pixels": 128, "step": 16}, 8),
    ({"pixels": 32, "step": 16}, 4),
)
@triton.jit(do_not_specialize=["scale", "share"])
def backward_attention_kernel(
    x, d_result, weight, bias, d_attention, batch, channels, height, width, groups, share,
    xb, xc, xy, xx, rb, rc, ry, rx, split, ab, an, ay, ax, scale,
    depth: tl.constexpr, num_bases: tl.constexpr, kernel_size: tl.constexpr, products: tl.constexpr,
    wide: tl.constexpr, bases: tl.constexpr, pixels: tl.constexpr, step: tl.constexpr,
):  # fmt: skip
    """Of `share` groups; one slice of `d_attention` for each such share."""
    image, row, column, valid = _locate(tl.program_id(0), batch, height, width, pixels)
    at, by = _offsets(image, row, column, xb, xy, xx), _offsets(image, row, column, rb, ry, rx)
    total = tl.zeros((pixels, bases), tl.float32)
    first = tl.program_id(1) * share
    for group in range(first, tl.minimum(first + share, groups)):
        filtered = _filtered(
            x, at, row, column, valid, weight, bias, group, channels, height, width, xc, xy, xx,
            depth, num_bases, kernel_size, products, pixels, wide, bases, step,
        )  # fmt: skip
        d_mixed = _channels(d_result, by, valid, group * depth, depth, rc, wide)
        total += tl.sum(filtered * d_mixed[:, :, None], 1)
    n = tl.arange(0, bases)
    to = _offsets(image, row, column, ab, ay, ax) + tl.program_id(1).to(tl.int64) * split
    where = to[:, None] + (n.to(tl.int64) * an)[None, :]
    tl.store(d_attention + where, total, valid[:, None] & (n < num_bases)[None, :])


@_tuned(({"pixels": 64}, 4), ({"pixels": 128}, 8), ({"pixels": 128}, 4), ({"pixels": 32}, 4))
@triton.jit(do_not_specialize=["scale"])
def backward_image_kernel(
    attention, d_result, weight, d_x, channels, height, width,
    ab, an, ay, ax, rb, rc, ry, rx, xb, xc, xy, xx, scale,
    depth: tl.constexpr, num_bases: tl.constexpr, kernel_size: tl.constexpr, products: tl.constexpr,
    wide: tl.constexpr, bases: tl.constexpr, inputs: tl.constexpr, taps: tl.constexpr, pixels: tl.constexpr,
):  # fmt: skip
    """A tile is a run of positions, row after row, with the padding between rows; its ends serve the rest.

    Rows are added by going through the rows of the kernel, columns by shifting the tile along itself.
    """
    reach: tl.constexpr = kernel_size // 2
    line, inner = width + reach, pixels - 2 * reach
    tiles = (height * line + inner - 1) // inner
    image, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    group = tl.program_id(1)
    lane = tl.arange(0, pixels)
    position = tile * inner - reach + lane
    y, x = position // line, position % line
    real = (position >= 0) & (x < width)
    k = tl.arange(0, wide * bases)
    o, n = k // bases, k % bases
    exists = (o < depth) & (n < num_bases)
    column = tl.arange(0, inputs * taps)
    i, tap_x = column // taps, column % taps
    wanted = (i < depth) & (tap_x < kernel_size)
    patch: tl.constexpr = depth * kernel_size * kernel_size
    base = (n * channels + group * depth + o) * patch
    total = tl.zeros((pixels, inputs * taps), tl.float32)
    for tap_y in tl.static_range(kernel_size):
        row = y + reach - tap_y
        valid = real & (row >= 0) & (row < height)
        mix = _channels(attention, _offsets(image, row, x, ab, ay, ax), valid, 0, num_bases, an, bases)
        by = _offsets(image, row, x, rb, ry, rx)
        d_mixed = _channels(d_result, by, valid, group * depth, depth, rc, wide)
        left = tl.reshape(d_mixed[:, :, None] * mix[:, None, :], (pixels, wide * bases))
        entry = i * kernel_size * kernel_size + tap_y * kernel_size + tap_x
        where = base[:, None] + entry[None, :]
        right = tl.load(weight + where, exists[:, None] & wanted[None, :], 0.0)
        total = _dot(left, right, total, products)
    source = lane[:, None] + (reach - tap_x)[None, :]
    source = tl.minimum(tl.maximum(source, 0), pixels - 1)  # wrong only at the ends and in columns of zeros
    summed = tl.sum(tl.reshape(tl.gather(total, source, 0), (pixels, inputs, taps)), 2)
    kept = real & (y < height) & (lane >= reach) & (lane < pixels - reach)
    channel = tl.arange(0, inputs)
    to = _offsets(image, y, x, xb, xy, xx)
    where = to[:, None] + ((group * depth + channel).to(tl.int64) * xc)[None, :]
    tl.store(d_x + where, summed, kept[:, None] & (channel < depth)[None, :])


@_tuned(
    ({"pixels": 64, "step": 64}, 4),
    ({"pixels": 32, "step": 64}, 4),
    ({"pixels": 64, "step": 64}, 8),
    ({"pixels": 64, "step": 16}, 4),
)
@triton.jit(do_not_specialize=["scale"])
def backward_weight_kernel(
    x, attention, d_result, d_joined, batch, channels, height, width,
    xb, xc, xy, xx, ab, an, ay, ax, rb, rc, ry, rx, scale,
    depth: tl.constexpr, num_bases: tl.constexpr, kernel_size: tl.constexpr, products: tl.constexpr,
    wide: tl.constexpr, bases: tl.constexpr, pixels: tl.constexpr, step: tl.constexpr,
):  # fmt: skip
    """Of every so many-th tile; one slice (N, C, D * k^2 + 1) of `d_joined` for each program of axis 0."""
    group, entry = tl.program_id(1), tl.program_id(2) * step + tl.arange(0, step)
    patch: tl.constexpr = depth * kernel_size * kernel_size
    total = tl.zeros((wide * bases, step), tl.float32)
    tiles = (batch * height * width + pixels - 1) // pixels
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        image, row, column, valid = _locate(tile, batch, height, width, pixels)
        at, by = _offsets(image, row, column, xb, xy, xx), _offsets(image, row, column, rb, ry, rx)
        mix = _channels(attention, _offsets(image, row, column, ab, ay, ax), valid, 0, num_bases, an, bases)
        d_mixed = _channels(d_result, by, valid, group * depth, depth, rc, wide)
        left = tl.reshape(d_mixed[:, :, None] * mix[:, None, :], (pixels, wide * bases))
        patches = _patches(
            x, at, row, column, valid, group * depth, height, width, xc, xy, xx, entry, depth, kernel_size
        )
        right = tl.where((entry == patch)[None, :], 1.0, patches.to(tl.float32))
        total = _dot(tl.trans(left), right, total, products)
    k = tl.arange(0, wide * bases)
    o, n = k // bases, k % bases
    index = tl.program_id(0).to(tl.int64) * num_bases * channels + n * channels + group * depth + o
    where = (index * (patch + 1))[:, None] + entry[None, :]
    exists = ((o < depth) & (n < num_bases))[:, None] & (entry <= patch)[None, :]
    tl.store(d_joined + where, total, exists)
