// Kernels of 3 x 3 on two rows of pixels at once, with fewer products: minimal filtering, see arXiv 1509.09308 section 4.
// For one column of a kernel, w0 to w2, and four rows of an image, d0 to d3, the two results are
//     u = d0 w0 + d1 w1 + d2 w2    and    l = d1 w0 + d2 w1 + d3 w2.
// In float32, F(2, 3) takes four products for six:
//     m = (d1 + d2) (w0 + w1 + w2) / 2,  n = (d2 - d1) (w0 - w1 + w2) / 2,
//     u = m + n + (d0 - d2) w0,  l = m - n + (d3 - d1) w2.
// In bfloat16 its sums and differences are rounded too often: it would err more than the definition in bfloat16. So F(2, 2)
// for two of the three taps, five products for six, which errs less:
//     m = d1 (w0 + w1),  u = m + (d0 - d1) w0 + d2 w2,  l = m + (d2 - d1) w1 + d3 w2.

#pragma once

#include "vectors.h"

namespace {

constexpr int DEPTH = 4;                       // inputs and outputs of a group, the published number
constexpr int FACTORS = 4;                     // that a column of a kernel becomes
template <bool HALF>
constexpr int INPUTS = HALF ? 5 : 4;           // that four rows become
constexpr int SUMS = REGISTERS / 8;            // outputs that are summed up at once, for two vectors of either row

// Words (pairs of inputs in bfloat16) that the three columns of all inputs take.
template <bool HALF>
constexpr int COLUMNS = 3 * DEPTH / (HALF ? 2 : 1);

// Words of one base's transformed filters of one group: its biases (float32), then [factor][column][output].
template <bool HALF>
constexpr int FILTER_WORDS = (1 + FACTORS * COLUMNS<HALF>) * DEPTH;

template <bool HALF>
INLINE void transform_column(vec (&to)[FACTORS], vec w0, vec w1, vec w2) {
    if constexpr (HALF) to[0] = w0 + w1, to[1] = w0, to[2] = w1, to[3] = w2;
    else {
        const vec sides = (w0 + w2) * 0.5f, middle = w1 * 0.5f;
        to[0] = sides + middle, to[1] = sides - middle, to[2] = w0, to[3] = w2;
    }
}

template <bool HALF>
INLINE void transform_rows(vec (&to)[INPUTS<HALF>], vec d0, vec d1, vec d2, vec d3) {
    if constexpr (HALF) to[0] = d1, to[1] = d0 - d1, to[2] = d2 - d1, to[3] = d2, to[4] = d3;
    else to[0] = d1 + d2, to[1] = d2 - d1, to[2] = d0 - d2, to[3] = d3 - d1;
}

// One group's filters, base by base. `weight` and `bias`: of the first base; the next ones `weight_step` and `bias_step`
// further on.
template <bool HALF, typename T>
void transform_filters(float* filter, const T* weight, long weight_step, const T* bias, long bias_step, long bases) {
    constexpr int SIZE = 9 * DEPTH * DEPTH, TERMS = (SIZE + LANES - 1) / LANES * LANES, PAIR = HALF ? 2 : 1;
    constexpr int WORDS = FILTER_WORDS<HALF>, ROWS = (WORDS + LANES - 1) / LANES * LANES;
    alignas(64) float rows[LANES * TERMS] = {}, terms[TERMS * LANES];        // [base][term], [term][base]
    alignas(64) float words[ROWS * LANES] = {}, turned[LANES * ROWS];        // [word][base], [base][word]
    for (long first = 0; first < bases; first += LANES) {
        const long some = bases - first < LANES ? bases - first : LANES;
        for (long n = 0; n < some; ++n) {
            convert(rows + n * TERMS, weight + (first + n) * weight_step, SIZE);
            for (int o = 0; o < DEPTH; ++o) words[o * LANES + n] = float(bias[(first + n) * bias_step + o]);
        }
        for (int r = 0; r < TERMS; r += LANES) turn(terms + r * LANES, LANES, rows + r, TERMS);
        float* to = words + DEPTH * LANES;
        for (int column = 0; column < 3; ++column)
            for (int i = 0; i < DEPTH; i += PAIR)
                for (int o = 0; o < DEPTH; ++o, to += LANES) {
                    vec word[PAIR][FACTORS];
                    for (int k = 0; k < PAIR; ++k) {
                        const float* tap = terms + ((o * DEPTH + i + k) * 9 + column) * LANES;
                        transform_column<HALF>(word[k], load(tap), load(tap + 3 * LANES), load(tap + 6 * LANES));
                    }
                    for (int factor = 0; factor < FACTORS; ++factor)
                        store(to + factor * COLUMNS<HALF> * DEPTH * LANES,
                              as_words<HALF>(word[0][factor], word[PAIR - 1][factor]));
                }
        for (int r = 0; r < ROWS; r += LANES) turn(turned + r, ROWS, words + r * LANES, LANES);
        for (long n = 0; n < some; ++n) std::memcpy(filter + (first + n) * WORDS, turned + n * ROWS, 4 * WORDS);
    }
}

// What the kernels at a vector of pixels and the one below it see, [input][column][vector] for VECTORS of them; here for
// one. `near`: the upper left neighbour of the first pixel; inputs are `plane` apart, rows `stride`.
template <bool HALF, int VECTORS>
INLINE void transform_patch(float* patch, const float* near, long plane, long stride) {
    constexpr int PAIR = HALF ? 2 : 1, STEP = COLUMNS<HALF> * VECTORS * LANES;
    for (int column = 0; column < 3; ++column)
        for (int i = 0; i < DEPTH; i += PAIR, patch += VECTORS * LANES) {
            vec word[PAIR][INPUTS<HALF>];
            for (int k = 0; k < PAIR; ++k) {
                const float* row = near + (i + k) * plane + column;
                transform_rows<HALF>(word[k], load(row), load(row + stride), load(row + 2 * stride), load(row + 3 * stride));
            }
            for (int input = 0; input < INPUTS<HALF>; ++input)
                store(patch + input * STEP, as_words<HALF>(word[0][input], word[PAIR - 1][input]));
        }
}

// What SUMS outputs, from the one on that `filter` points to, of one base are at the pixels of the patch, in the upper and
// the lower row. `bias`: of the first of these outputs.
template <bool HALF, int VECTORS>
INLINE void apply_filters(vec (&upper)[SUMS][VECTORS], vec (&lower)[SUMS][VECTORS], const float* patch, const float* filter,
                          const float* bias) {
    auto add = [&](vec(&sum)[SUMS][VECTORS], int factor, int input, int column) __attribute__((always_inline)) {
        vec pixels[VECTORS];
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) pixels[v] = held(load(patch + ((input * COLUMNS<HALF> + column) * VECTORS + v) * LANES));
#pragma GCC unroll 4
        for (int m = 0; m < SUMS; ++m) {
            const vec word = held(broadcast(filter + (factor * COLUMNS<HALF> + column) * DEPTH + m));
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; ++v) sum[m][v] = madd<HALF>(sum[m][v], pixels[v], word);
        }
    };
    auto each = [&](auto f) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (int m = 0; m < SUMS; ++m)
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; ++v) f(m, v);
    };
    each([&](int m, int v) __attribute__((always_inline)) { upper[m][v] = broadcast(bias + m), lower[m][v] = vec{}; });
#pragma GCC unroll 12
    for (int column = 0; column < COLUMNS<HALF>; ++column) {
        add(upper, 0, 0, column);
        if constexpr (!HALF) add(lower, 1, 1, column);
    }
    each([&](int m, int v) __attribute__((always_inline)) {
        const vec sum = upper[m][v];
        if constexpr (HALF) lower[m][v] = sum;
        else upper[m][v] = sum + lower[m][v], lower[m][v] = sum - lower[m][v];
    });
#pragma GCC unroll 12
    for (int column = 0; column < COLUMNS<HALF>; ++column) {
        add(upper, HALF ? 1 : 2, HALF ? 1 : 2, column);
        add(lower, HALF ? 2 : 3, HALF ? 2 : 3, column);
        if constexpr (HALF) add(upper, 3, 3, column), add(lower, 3, 4, column);
    }
}

}  // namespace
