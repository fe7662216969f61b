// What one call of kernel basis attention is about: sizes, how pixels are numbered, and the bases in the order they are
// read. See kernel_basis.cpp.

#pragma once

#include <vector>

#include "minimal_filter.h"
#include "threads.h"
#include "vectors.h"

namespace {

constexpr int WIDE = REGISTERS / 8;           // vectors of pixels per tile: with 4 rows, half of the registers accumulate
constexpr int HALF_WIDE = WIDE / 2;           // at the end of the pixels
constexpr int PANEL = WIDE * LANES;           // pixels that are handled together
constexpr int TERMS = REGISTERS / 4 + REGISTERS / 8;  // rows of a tile with 2 vectors of bases
constexpr int PAIR_TERMS = REGISTERS / 2 - 2;  // the same for pairs of bfloat16, where nothing else needs a register

inline long round_up(long number, long step) { return (number + step - 1) / step * step; }

struct Shape {
    long batch, channels, height, width, bases, kernel, groups, bands, rows, threads, chunks;
    bool last_x, last_attention, last_out;                    // channels last?
    bool half_x, half_attention, half_weight, half_out;       // bfloat16? Gradients are like their tensors.
    long depth, taps, pad, stride, line, pixels, plane, reach;  // derived
    long inner;         // what one output of one base is made of: depth * taps
    long terms;         // of one group: the inner of all its outputs, then its biases
    long padded_bases;  // a multiple of two vectors
    explicit Shape(const int64_t* v)
        : batch(v[0]), channels(v[1]), height(v[2]), width(v[3]), bases(v[4]), kernel(v[5]), groups(v[6]),
          bands(v[7]), rows(v[8]), threads(v[9]), chunks(v[10]), last_x(v[11]), last_attention(v[12]),
          last_out(v[13]), half_x(v[14]), half_attention(v[15]), half_weight(v[16]), half_out(v[17]) {
        depth = channels / groups;
        taps = kernel * kernel;
        pad = kernel / 2;
        stride = width + 2 * pad;
        line = width % LANES ? stride : width;
        pixels = round_up(rows * line, PANEL);
        reach = 2 * pad * (stride + 1);
        plane = round_up(at(pixels - LANES) + LANES + reach, LANES);
        inner = depth * taps;
        terms = depth * (inner + 1);
        padded_bases = round_up(bases, 2 * LANES);
    }
    // Where a pixel, or the vector from there, lies in x.
    long at(long pixel) const { return line == stride ? pixel : pixel / line * stride + pixel % line; }
    template <bool HALF>
    long words(long count) const { return HALF ? (count + 1) / 2 : count; }
    template <bool HALF>
    long mix() const { return words<HALF>(bases) * terms; }  // floats that the packed weights of one group take
    template <bool HALF>
    long each() const {  // the same, base by base
        return (rows_in_pairs() ? FILTER_WORDS<HALF> : (words<HALF>(inner) + 1) * depth) * bases;
    }
    // Whether minimal_filter.h is for these: every band has pairs of rows of whole vectors.
    bool rows_in_pairs() const { return kernel == 3 && depth == DEPTH && line % LANES == 0 && (height | rows) % 2 == 0; }
};

template <int M>
struct Rows {
    static constexpr int value = M;
};

// Calls f(first, Rows<count>) for chunks of at most 4 (or 3) of `total`.
template <int MOST = 4, typename F>
inline void in_chunks(long total, F f) {
    long first = 0;
    for (; first + MOST <= total; first += MOST) f(first, Rows<MOST>());
    if constexpr (MOST > 3)
        if (total - first == 3) f(first, Rows<3>());
    if (total - first == 2) f(first, Rows<2>());
    if (total - first == 1) f(first, Rows<1>());
}

// The bases of one group for sums over bases: [output][base][input, tap], then [base][output] of the biases.
template <bool HALF, typename T>
void pack_mix(float* mix, const Shape& s, const T* weight, const T* bias) {
    using S = std::conditional_t<HALF, bfloat16, float>;
    const long words = s.words<HALF>(s.bases), size = s.depth * s.inner, step = s.words<HALF>(round_up(s.terms, 2));
    std::vector<float> block(s.padded_bases * step);
    auto row = [&](long n) { return reinterpret_cast<S*>(block.data() + n * step); };
    for (long n = 0; n < s.bases; ++n) {
        convert(row(n), weight + n * s.channels * s.inner, size);
        convert(row(n) + size, bias + n * s.channels, s.depth);
    }
    auto put = [&](float* to, long k, long first, long count) {
        if constexpr (HALF) {
            const uint16_t *low = &row(2 * k)[first].bits, *high = &row(2 * k + 1)[first].bits;
            uint32_t* word = reinterpret_cast<uint32_t*>(to);
#pragma GCC ivdep
            for (long j = 0; j < count; ++j) word[j] = low[j] | uint32_t(high[j]) << 16;
        } else std::memcpy(to, row(k) + first, 4 * count);
    };
    for (long k = 0; k < words; ++k) {
        for (long o = 0; o < s.depth; ++o) put(mix + (o * words + k) * s.inner, k, o * s.inner, s.inner);
        put(mix + words * size + k * s.depth, k, size, s.depth);
    }
}

// The bases of one group one by one: [base][output][input, tap], then [base][output] of the biases, as float32; or the
// filters for pairs of rows.
template <bool HALF, typename T>
void pack_each(float* each, const Shape& s, const T* weight, const T* bias) {
    using S = std::conditional_t<HALF, bfloat16, float>;
    if (s.rows_in_pairs()) {
        transform_filters<HALF>(each, weight, s.channels * s.inner, bias, s.channels, s.bases);
        return;
    }
    const long inputs = s.words<HALF>(s.inner);
    float* biases = each + s.bases * s.depth * inputs;
    for (long n = 0; n < s.bases; ++n, biases += s.depth) {
        for (long o = 0; o < s.depth; ++o, each += inputs) {
            S* to = reinterpret_cast<S*>(each);
            convert(to, weight + (n * s.channels + o) * s.inner, s.inner);
            if (HALF && s.inner % 2) to[s.inner] = S(0.f);
        }
        convert(biases, bias + n * s.channels, s.depth);
    }
}

// How the bases of all groups are packed: training takes them in both orders, inference in one.
template <bool HALF>
struct Packing {
    bool mixes, each;
    long mix, size;  // floats of one group: in the first order, and in all
    Packing(const Shape& s, bool training)
        : mixes(training || !s.rows_in_pairs()), each(training || s.rows_in_pairs()), mix(mixes ? s.mix<HALF>() : 0),
          size(mix + (each ? s.each<HALF>() : 0)) {}
};

template <bool HALF>
void pack_all(float* packed, const Shape& s, const void* weights, const void* biases, bool training) {
    const Packing<HALF> packing(s, training);
    with_type(s.half_weight, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        in_threads(s.threads, s.groups, [&](long g) {
            const T* weight = static_cast<const T*>(weights) + g * s.depth * s.inner;
            const T* bias = static_cast<const T*>(biases) + g * s.depth;
            float* to = packed + g * packing.size;
            if (packing.mixes) pack_mix<HALF>(to, s, weight, bias);
            if (packing.each) pack_each<HALF>(to + packing.mix, s, weight, bias);
        });
    });
}

}  // namespace
