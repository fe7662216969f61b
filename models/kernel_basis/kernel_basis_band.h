// Kernel basis attention on a band of rows of one image, forward and backward. See kernel_basis.cpp.

#pragma once

#include <vector>

#include "kernel_basis_shape.h"
#include "minimal_filter.h"
#include "vectors.h"

namespace {

thread_local Scratch scratch;

// sum[m][v] += over k of a[k][m] * b[k][v], where the numbers of one k lie `step` apart in a.
template <bool HALF, int M, int V>
INLINE void multiply(vec (&sum)[M][V], const float* a, long step_a, const float* b, long step_b, long count, long step = 1) {
#pragma GCC unroll 4
    for (long k = 0; k < count; ++k, a += step_a, b += step_b) {
        vec right[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) right[v] = held(load(b + v * LANES));
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const vec left = held(broadcast(a + m * step));
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[m][v] = madd<HALF>(sum[m][v], left, right[v]);
        }
    }
}

// One band of rows of one image; its channels are handled group by group.
template <bool HALF>
struct Band {
    const Shape& s;
    const long words, inputs;      // of the bases, of the inputs and taps
    const Packing<HALF> packing;
    const long rows16;             // of a panel of attention
    // Panels of [base][pixel] (words: pairs of bases), and the same as [pixel][base] (pairs of pixels).
    float *attention, *attention_rows, *d_attention;
    float *x, *alone;                // [input][pixel]: x with its surroundings, and the gradient
    float* image;                    // [output][pixel]: the result, or its gradient
    float *patch;                    // what the pixels of a panel see, [input, tap][pixel] (words: pairs of those)
    float *products;                 // of d_out and x, in bfloat16, one row per term
    float *stage;
    const float *mix = nullptr, *each = nullptr;  // see pack_weights
    long index = 0, first = 0, count = 0;         // the image, and its rows
    bool fresh = true;                            // whether d_terms, still to be written, has no numbers yet
    long panels = 0;
    std::vector<long> offset;  // where each input and tap lies in x, from its pixel

    Band(const Shape& shape, bool training)
        : s(shape), words(s.words<HALF>(s.bases)), inputs(s.words<HALF>(s.inner)),
          packing(s, training), rows16(HALF ? s.padded_bases / 2 : s.padded_bases) {
        for (long i = 0; i < s.depth; ++i)
            for (long tap = 0; tap < s.taps; ++tap)
                offset.push_back(i * s.plane + tap / s.kernel * s.stride + tap % s.kernel);
        const long train = training ? 1 : 0;
        struct Need {
            float*& block;
            long floats;
        } needs[] = {
            {attention, rows16 * s.pixels},
            {attention_rows, train * rows16 * s.pixels},
            {d_attention, train * s.padded_bases * s.pixels},
            {x, s.depth * s.plane},
            {alone, train * s.depth * s.plane},
            {image, s.depth * s.pixels},
            {patch, s.rows_in_pairs() ? INPUTS<HALF> * COLUMNS<HALF> * 2 * LANES : train * inputs * PANEL},
            {products, HALF ? train * s.terms * s.pixels / 2 : 0},
            {stage, LANES * (s.padded_bases > s.width ? s.padded_bases : s.width)},
        };
        long total = 0;
        for (auto& need : needs) total += round_up(need.floats, LANES);
        float* next = scratch.at_least(total);
        for (auto& need : needs) need.block = next, next += round_up(need.floats, LANES);
    }

    void start(long task, const void* all_attention, bool training) {
        index = task / s.bands;
        first = task % s.bands * s.rows;
        count = s.rows < s.height - first ? s.rows : s.height - first;
        panels = (count * s.line + PANEL - 1) / PANEL;
        with_type(s.half_attention, [&](auto* type) {
            pack_attention(static_cast<const std::remove_pointer_t<decltype(type)>*>(all_attention), training);
        });
        if (training) std::memset(d_attention, 0, 4 * panels * s.padded_bases * PANEL);
    }

    // The pixel of a number within its image, or -1 for padding.
    long pixel_of(long p) const {
        const long row = p / s.line, column = p % s.line;
        return row < count && column < s.width ? (first + row) * s.width + column : -1;
    }

    // How many pixels from p on, at most `most`, lie next to each other in the image.
    long neighbours(long p, long most) const {
        const long left = s.width - p % s.line;
        return left < most ? left : most;
    }

    template <typename T>
    void pack_attention(const T* all, bool training) {
        using S = std::conditional_t<HALF, bfloat16, float>;
        const long area = s.height * s.width, step = s.padded_bases;
        const T* from = all + index * s.bases * area;
        for (long p = 0; p < panels * PANEL; p += LANES) {
            S* rows = reinterpret_cast<S*>(!HALF && training ? attention_rows + p * step : stage);
            std::memset(rows, 0, sizeof(S) * LANES * step);
            for (long lane = 0, some = 1; lane < LANES; lane += some, some = 1) {
                const long pixel = pixel_of(p + lane);
                if (pixel < 0) continue;
                some = neighbours(p + lane, LANES - lane);
                if (s.last_attention)
                    for (long k = 0; k < some; ++k) convert(rows + (lane + k) * step, from + (pixel + k) * s.bases, s.bases);
                else turn_all(rows + lane * step, step, from + pixel, area, s.bases, some);
            }
            float* to = attention + p / PANEL * rows16 * PANEL + p % PANEL;
            for (long n = 0; n < rows16; n += LANES)
                turn(to + n * PANEL, PANEL, reinterpret_cast<float*>(rows) + n, rows16);
#if HAS_BF16
            if constexpr (HALF) {
                if (!training) continue;
                for (int lane = 0; lane < LANES; lane += 2)
                    for (long n = 0; n < step; n += 2 * LANES)
                        interleave(attention_rows + (p + lane) / 2 * step + n, rows + lane * step + n,
                                   rows + (lane + 1) * step + n);
            }
#endif
        }
    }

    // [base][pixel] to the tensor.
    template <typename T>
    void unpack_attention(T* all) {
        const long area = s.height * s.width, step = s.padded_bases;
        T* to = all + index * s.bases * area;
        for (long p = 0, some = 1; p < panels * PANEL; p += some, some = 1) {
            const long pixel = pixel_of(p);
            if (pixel < 0) continue;
            some = neighbours(p, LANES - p % LANES);
            const float* from = d_attention_at(p);
            if (s.last_attention) turn_all(to + pixel * s.bases, s.bases, from, PANEL, s.bases, some);
            else for (long n = 0; n < s.bases; ++n) convert(to + n * area + pixel, from + n * PANEL, some);
        }
    }

    void finish(void* all_d_attention) {
        with_type(s.half_attention, [&](auto* type) { unpack_attention(static_cast<decltype(type)>(all_d_attention)); });
    }

#if HAS_BF16
    // Pairs of two rows of bfloat16: of the first in the low halves.
    static void interleave(float* to, const bfloat16* a, const bfloat16* b) {
        alignas(64) static constexpr uint16_t order[64] = {
            0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47,
            16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63};
        const __m512i low = _mm512_loadu_si512(a), high = _mm512_loadu_si512(b);
        _mm512_storeu_si512(to, _mm512_permutex2var_epi16(low, _mm512_load_si512(order), high));
        _mm512_storeu_si512(to + LANES, _mm512_permutex2var_epi16(low, _mm512_load_si512(order + 32), high));
    }

#endif

    // Channels [channel, channel + depth) of rows [top, top + height) as planes of zeros with the rows in them, `pad`
    // from their left and `step` apart.
    template <typename T>
    void pack_planes(float* to, long plane, long pad, long step, const T* all, bool last, long channel, long top,
                     long height) {
        const long area = s.height * s.width;
        std::memset(to, 0, 4 * s.depth * plane);
        for (long row = 0; row < height; ++row) {
            const long y = top + row;
            if (y < 0 || y >= s.height) continue;
            float* target = to + row * step + pad;
            if (!last) {
                const T* from = all + (index * s.channels + channel) * area + y * s.width;
                for (long i = 0; i < s.depth; ++i) convert(target + i * plane, from + i * area, s.width);
                continue;
            }
            const T* from = all + (index * area + y * s.width) * s.channels + channel;
            if (s.depth == 4)
                for (long column = 0; column < s.width; ++column, from += s.channels, ++target) {
                    target[0] = from[0], target[plane] = from[1], target[2 * plane] = from[2], target[3 * plane] = from[3];
                }
            else
                for (long column = 0; column < s.width; ++column, from += s.channels, ++target)
                    for (long i = 0; i < s.depth; ++i) target[i * plane] = from[i];
        }
    }

    // The rows of this band from planes of them, `step` apart.
    template <typename T>
    void unpack_planes(T* all, bool last, long channel, const float* planes, long plane, long step) {
        const long area = s.height * s.width;
        T* rows = reinterpret_cast<T*>(stage);
        for (long row = 0; row < count; ++row, planes += step) {
            if (!last) {
                T* to = all + (index * s.channels + channel) * area + (first + row) * s.width;
                for (long o = 0; o < s.depth; ++o) convert(to + o * area, planes + o * plane, s.width);
                continue;
            }
            T* to = all + (index * area + (first + row) * s.width) * s.channels + channel;
            for (long o = 0; o < s.depth; o += LANES) {
                const long some = s.depth - o < LANES ? s.depth - o : LANES;
                for (long k = 0; k < some; ++k) convert(rows + k * s.width, planes + (o + k) * plane, s.width);
                for (long column = 0; column < s.width; ++column)
                    for (long k = 0; k < some; ++k) to[column * s.channels + o + k] = rows[k * s.width + column];
            }
        }
    }

    void group(long g, const void* all_x, const float* packed, bool training) {
        with_type(s.half_x, [&](auto* type) {
            using T = std::remove_pointer_t<decltype(type)>;
            pack_planes(x, s.plane, s.pad, s.stride, static_cast<const T*>(all_x), s.last_x, g * s.depth, first - s.pad,
                        count + 2 * s.pad);
        });
        mix = packed + g * packing.size;
        each = mix + packing.mix;
    }

    const float* attention_at(long p) const { return attention + p / PANEL * rows16 * PANEL + p % PANEL; }
    float* d_attention_at(long p) const { return d_attention + p / PANEL * s.padded_bases * PANEL + p % PANEL; }

    // Calls f(first pixel, Rows<vectors>) for all pixels, at most VECTORS vectors together.
    template <int VECTORS, typename F>
    void in_strips(F f) const {
        const long end = round_up(count * s.line, LANES * (VECTORS < HALF_WIDE ? VECTORS : HALF_WIDE));
        long p = 0;
        for (; p + VECTORS * LANES <= end; p += VECTORS * LANES) f(p, Rows<VECTORS>());
        if (p < end) f(p, Rows<HALF_WIDE>());
    }

    // Calls f(first pixels of vectors of an upper row, Rows<vectors>) for all pairs of rows, two vectors at a time.
    template <typename F>
    void in_row_pairs(F f) const {
        const long across = s.line / LANES, all = count / 2 * across;
        auto pixel = [&](long k) { return k / across * 2 * s.line + k % across * LANES; };
        long k = 0;
        for (; k + 2 <= all; k += 2) {
            const long p[2] = {pixel(k), pixel(k + 1)};
            f(p, Rows<2>());
        }
        if (k < all) {
            const long p[1] = {pixel(k)};
            f(p, Rows<1>());
        }
    }

    // What the kernels at vectors of an upper row and below them see, as minimal_filter.h wants it.
    template <int V>
    void transform(const long* p) {
        for (int v = 0; v < V; ++v) transform_patch<HALF, V>(patch + v * LANES, x + s.at(p[v]), s.plane, s.stride);
    }

    // Calls f(base, first output, upper row, lower row) with what every base alone makes of the pixels.
    template <int V, typename F>
    void in_bases(F f) const {
        const float* filter = each;
        for (long n = 0; n < s.bases; ++n, filter += FILTER_WORDS<HALF>)
            for (long o = 0; o < DEPTH; o += SUMS) {
                vec upper[SUMS][V], lower[SUMS][V];
                apply_filters<HALF, V>(upper, lower, patch, filter + DEPTH + o, filter + o);
                f(n, o, upper, lower);
            }
    }

    // Attention of base n at a vector of pixels, from where that of the first base lies.
    static vec scale(const float* attention, long n) {
        if constexpr (!HALF) return load(attention + n * PANEL);
        return one_of_pair(load(attention + n / 2 * PANEL), n % 2);
    }

    // The result at these pixels and those below them.
    template <int V>
    void filter_rows(const long* p) {
        transform<V>(p);
        const float *above[V], *below[V];
        for (int v = 0; v < V; ++v) above[v] = attention_at(p[v]), below[v] = attention_at(p[v] + s.line);
        // The totals stay in memory: registers hold the sums alone.
        in_bases<V>([&](long n, long o, auto& upper, auto& lower) __attribute__((always_inline)) {
            vec a[V][2];
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) a[v][0] = scale(above[v], n), a[v][1] = scale(below[v], n);
#pragma GCC unroll 4
            for (int m = 0; m < SUMS; ++m)
#pragma GCC unroll 2
                for (int v = 0; v < V; ++v) {
                    float *to = image + (o + m) * s.pixels + p[v], *to2 = to + s.line;
                    store(to, load(to) + upper[m][v] * a[v][0]), store(to2, load(to2) + lower[m][v] * a[v][1]);
                }
        });
    }

    // What every base alone makes of these pixels and those below them, times d_out.
    template <int V>
    void attention_of_rows(const long* p) {
        transform<V>(p);
        float *above[V], *below[V];
        for (int v = 0; v < V; ++v) above[v] = d_attention_at(p[v]), below[v] = d_attention_at(p[v] + s.line);
        in_bases<V>([&](long n, long o, auto& upper, auto& lower) __attribute__((always_inline)) {
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) {
                float *to = above[v] + n * PANEL, *to2 = below[v] + n * PANEL;
                vec sum = load(to), sum2 = load(to2);
#pragma GCC unroll 4
                for (int m = 0; m < SUMS; ++m) {
                    const float* d = image + (o + m) * s.pixels + p[v];
                    sum += upper[m][v] * load(d), sum2 += lower[m][v] * load(d + s.line);
                }
                store(to, sum), store(to2, sum2);
            }
        });
    }

    void forward(long g, void* out) {
        if (s.rows_in_pairs()) {
            std::memset(image, 0, 4 * s.depth * s.pixels);
            in_row_pairs([&](const long* p, auto vectors) { filter_rows<vectors.value>(p); });
        } else in_strips<WIDE>([&](long p, auto wide) {
            constexpr int V = wide.value;
            const float* a = attention_at(p);
            const float* near[V];
            for (int v = 0; v < V; ++v) near[v] = x + s.at(p + v * LANES);
            in_chunks(s.depth, [&](long o, auto chunk) {
                vec sum[chunk.value][V] = {};
                multiply<HALF>(sum, mix + words * s.depth * s.inner + o, s.depth, a, PANEL, words);
                for (int m = 0; m < chunk.value; ++m)
                    for (int v = 0; v < V; ++v) store(image + (o + m) * s.pixels + p + v * LANES, sum[m][v]);
            });
            for (long o = 0; o < s.depth; ++o) {
                const float* kernel = mix + o * words * s.inner;
                float* to = image + o * s.pixels + p;
                vec total[V];
                for (int v = 0; v < V; ++v) total[v] = load(to + v * LANES);
                in_chunks(s.inner, [&](long j, auto chunk) {
                    vec sum[chunk.value][V] = {};
                    multiply<HALF>(sum, kernel + j, s.inner, a, PANEL, words);
#pragma GCC unroll 4
                    for (int m = 0; m < chunk.value; ++m) {
                        const long away = offset[j + m];
#pragma GCC unroll 4
                        for (int v = 0; v < V; ++v) total[v] += sum[m][v] * load(near[v] + away);
                    }
                });
                for (int v = 0; v < V; ++v) store(to + v * LANES, total[v]);
            }
        });
        with_type(s.half_out, [&](auto* type) {
            unpack_planes(static_cast<decltype(type)>(out), s.last_x, g * s.depth, image, s.pixels, s.line);
        });
    }

    // Needs start() and group(). Adds to d_terms (of this chunk; writes it if that is fresh) and d_attention. The gradient
    // of x is written to d_x if this band is the image, else it becomes `shared`, in planes like x.
    void backward(long g, const void* d_out, void* d_x, float* shared, float* d_terms) {
        float* spread = s.bands > 1 ? shared : alone;
        with_type(s.half_out, [&](auto* type) {
            using T = std::remove_pointer_t<decltype(type)>;
            pack_planes(image, s.pixels, 0, s.line, static_cast<const T*>(d_out), s.last_out, g * s.depth, first, count);
        });
        std::memset(spread, 0, 4 * s.depth * s.plane);
        in_strips<WIDE>([&](long p, auto wide) { spread_strip<wide.value>(p, spread); });
        if (s.bands == 1)
            with_type(s.half_x, [&](auto* type) {
                unpack_planes(static_cast<decltype(type)>(d_x), s.last_x, g * s.depth, spread + s.pad * (s.stride + 1), s.plane,
                              s.stride);
            });
        if (s.rows_in_pairs()) in_row_pairs([&](const long* p, auto vectors) { attention_of_rows<vectors.value>(p); });
        else in_strips<WIDE>([&](long p, auto wide) { attention_strip<wide.value>(p); });
#if HAS_BF16
        if constexpr (HALF) in_strips<HALF_WIDE>([&](long p, auto) { multiply_pixels(p); });
#endif
        float* to = d_terms + g * s.terms * s.padded_bases;
        for (long n = 0; n < s.padded_bases; n += 2 * LANES) {
            if constexpr (HALF) correlate_pairs(to + n, n);
            else correlate(to + n, n);
        }
    }

    template <int V>
    void spread_strip(long p, float* spread) {
        const float* a = attention_at(p);
        float* near[V];
        for (int v = 0; v < V; ++v) near[v] = spread + s.at(p + v * LANES);
        in_chunks<3>(s.inner, [&](long j, auto chunk) {
            vec total[chunk.value][V] = {};
            for (long o = 0; o < s.depth; ++o) {
                vec sum[chunk.value][V] = {};
                multiply<HALF>(sum, mix + o * words * s.inner + j, s.inner, a, PANEL, words);
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) {
                    const vec d = load(image + o * s.pixels + p + v * LANES);
#pragma GCC unroll 4
                    for (int m = 0; m < chunk.value; ++m) total[m][v] += sum[m][v] * d;
                }
            }
            for (int m = 0; m < chunk.value; ++m)
                for (int v = 0; v < V; ++v) {
                    float* to = near[v] + offset[j + m];
                    store(to, load(to) + total[m][v]);
                }
        });
    }

    // The same for V vectors of pixels from p on, of any shape.
    template <int V>
    void attention_strip(long p) {
        gather<V>(p);
        const float *kernel = each, *bias = each + s.bases * s.depth * inputs;
        float* to = d_attention_at(p);
        for (long n = 0; n < s.bases; ++n, to += PANEL, kernel += s.depth * inputs, bias += s.depth) {
            vec total[V];
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) total[v] = load(to + v * LANES);
            in_chunks(s.depth, [&](long o, auto chunk) {
                vec sum[chunk.value][V];
#pragma GCC unroll 4
                for (int m = 0; m < chunk.value; ++m)
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v) sum[m][v] = broadcast(bias + o + m);
                multiply<HALF>(sum, kernel + o * inputs, 1, patch, V * LANES, inputs, inputs);
#pragma GCC unroll 4
                for (int m = 0; m < chunk.value; ++m) {
                    const float* d = image + (o + m) * s.pixels + p;
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v) total[v] += sum[m][v] * load(d + v * LANES);
                }
            });
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) store(to + v * LANES, total[v]);
        }
    }

    // What the pixels see, in words.
    template <int V>
    void gather(long p) {
        const float* near[V];
        for (int v = 0; v < V; ++v) near[v] = x + s.at(p + v * LANES);
        float* to = patch;
        for (long j = 0; j < s.inner; j += HALF ? 2 : 1)
            for (int v = 0; v < V; ++v, to += LANES) {
                const vec value = load(near[v] + offset[j]);
                if constexpr (!HALF) store(to, value);
#if HAS_BF16
                else store(to, pair(value, j + 1 < s.inner ? load(near[v] + offset[j + 1]) : vec{}));
#endif
            }
    }

#if HAS_BF16
    // For two vectors of pixels, d_out times what the result was made of, and d_out itself for the biases.
    void multiply_pixels(long p) {
        const float *low = x + s.at(p), *high = x + s.at(p + LANES);
        bfloat16* to = reinterpret_cast<bfloat16*>(products) + p;
        auto put = [&](long r, vec a, vec b) {
            _mm512_storeu_si512(to + r * s.pixels, (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a));
        };
        in_chunks(s.depth, [&](long o, auto chunk) {
            vec d[chunk.value][2];
#pragma GCC unroll 4
            for (int m = 0; m < chunk.value; ++m) {
                const float* from = image + (o + m) * s.pixels + p;
                d[m][0] = load(from), d[m][1] = load(from + LANES);
                put(s.depth * s.inner + o + m, d[m][0], d[m][1]);
            }
            for (long j = 0; j < s.inner; ++j) {
                const vec a = load(low + offset[j]), b = load(high + offset[j]);
#pragma GCC unroll 4
                for (int m = 0; m < chunk.value; ++m) put((o + m) * s.inner + j, d[m][0] * a, d[m][1] * b);
            }
        });
    }
#endif

    // d_terms[term][base]: attention times products, summed over the pixels.
    void correlate_pairs(float* d_terms, long n) {
        long r = 0;
        for (; r + PAIR_TERMS <= s.terms; r += PAIR_TERMS) pairs_tile<PAIR_TERMS>(d_terms, n, r);
        for (; r + 8 <= s.terms; r += 8) pairs_tile<8>(d_terms, n, r);
        for (; r + 4 <= s.terms; r += 4) pairs_tile<4>(d_terms, n, r);
        for (; r < s.terms; ++r) pairs_tile<1>(d_terms, n, r);
    }

    template <int COUNT>
    void pairs_tile(float* d_terms, long n, long r) {
        vec sum[COUNT][2];
        float* to = d_terms + r * s.padded_bases;
#pragma GCC unroll 14
        for (int k = 0; k < COUNT; ++k)
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) sum[k][half] = fresh ? vec{} : load(to + k * s.padded_bases + half * LANES);
        // Few addresses: there are fewer registers for them than rows.
        const long pairs = (count * s.line + 1) / 2, row = s.pixels / 2, step = s.padded_bases, row3 = 3 * row;
        const float *a = attention_rows + n, *rows[(COUNT + 3) / 4];
        for (int k = 0; k < COUNT; k += 4) rows[k / 4] = products + (r + k) * row;
        for (long p = 0; p < pairs; ++p, a += step) {
            const vec left = held(load(a)), left2 = held(load(a + LANES));
#pragma GCC unroll 14
            for (int k = 0; k < COUNT; ++k) {
                const float* word = rows[k / 4] + p;
                const vec right = held(broadcast(k % 4 == 3 ? word + row3 : word + k % 4 * row));
                sum[k][0] = madd<HALF>(sum[k][0], left, right);
                sum[k][1] = madd<HALF>(sum[k][1], left2, right);
            }
        }
#pragma GCC unroll 14
        for (int k = 0; k < COUNT; ++k)
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) store(to + k * s.padded_bases + half * LANES, sum[k][half]);
    }

    // The same in float32: at every pixel, d_out times attention, times x.
    void correlate(float* d_terms, long n) {
        for (long o = 0; o < s.depth; ++o) {
            long j = 0;
            for (; j + TERMS <= s.inner; j += TERMS) tile<TERMS>(d_terms, n, o, j);
            for (; j + 4 <= s.inner; j += 4) tile<4>(d_terms, n, o, j);
            for (; j < s.inner; ++j) tile<1>(d_terms, n, o, j);
            tile<0>(d_terms, n, o, s.inner);
        }
    }

    // For COUNT terms; none means the bias.
    template <int COUNT>
    void tile(float* d_terms, long n, long o, long j) {
        constexpr int ROWS = COUNT ? COUNT : 1;
        vec sum[ROWS][2];
        float* to = d_terms + (COUNT ? o * s.inner + j : s.depth * s.inner + o) * s.padded_bases;
        for (int k = 0; k < ROWS; ++k)
            for (int half = 0; half < 2; ++half) sum[k][half] = fresh ? vec{} : load(to + k * s.padded_bases + half * LANES);
        const float* term[COUNT + 1];
        for (long row = 0; row < count; ++row) {
            const float *d_out = image + o * s.pixels + row * s.line, *a = attention_rows + row * s.line * s.padded_bases + n;
            for (int k = 0; k < COUNT; ++k) term[k] = x + offset[j + k] + row * s.stride;
            for (long p = 0; p < s.width; ++p, a += s.padded_bases) {
                const vec d = broadcast(d_out + p);
                const vec left = load(a) * d, left2 = load(a + LANES) * d;
                if constexpr (COUNT == 0) sum[0][0] += left, sum[0][1] += left2;
#pragma GCC unroll 12
                for (int k = 0; k < COUNT; ++k) {
                    const vec right = held(broadcast(term[k] + p));
                    sum[k][0] += left * right;
                    sum[k][1] += left2 * right;
                }
            }
        }
        for (int k = 0; k < ROWS; ++k)
            for (int half = 0; half < 2; ++half) store(to + k * s.padded_bases + half * LANES, sum[k][half]);
    }
};

}  // namespace
