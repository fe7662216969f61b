// Kernel basis attention on the CPU, forward and backward; see kernel_basis.py for the definition.
//
// Rows of an image are handled in bands small enough for the second-level cache. In a band, pixels are
// numbered along rows that keep their padding, so that every neighbour lies at a fixed distance and 16
// pixels in a row make one vector, edges included. Nothing per pixel and base is ever stored: the mixed
// kernel of 64 pixels lives in registers until it has been applied.
//
// Every sum has a fixed order for a given number of chunks: repeated runs are equal bit for bit.
// Vectors are those of the compiler (GCC, Clang); only the bfloat16 products name an instruction set.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>
#if defined(__AVX512BF16__) && defined(__AVX512VBMI__)
#include <immintrin.h>
#define HAS_BF16 1
#else
#define HAS_BF16 0
#endif

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, REGISTERS = 32;
#else
constexpr int LANES = 8, REGISTERS = 16;
#endif
constexpr int WIDE = REGISTERS / 8;    // vectors of pixels per tile: with 4 rows, half of the registers accumulate
constexpr int TERMS = REGISTERS / 4 + REGISTERS / 8;  // rows of a tile with 2 vectors of bases
constexpr int ROUND = 32;  // pixels of a band are rounded up to this

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline vec load(const float* from) { return *reinterpret_cast<const loose*>(from); }
inline void store(float* to, vec value) { *reinterpret_cast<loose*>(to) = value; }

// Words are floats, or pairs of bfloat16 along the summed dimension: the same loops serve both.
template <bool HALF>
inline vec madd(vec sum, vec a, vec b) {
#if HAS_BF16
    if constexpr (HALF) return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#endif
    return sum + a * b;
}

inline vec broadcast(const float* from) {
    vec value;
#ifdef __AVX512F__
    value = (vec)_mm512_set1_ps(*from);
#else
    for (int lane = 0; lane < LANES; ++lane) value[lane] = *from;
#endif
    return value;
}

// sum[m][v] += over k of a[k][m] * b[k][v]
template <bool HALF, int M, int V>
inline void multiply(vec (&sum)[M][V], const float* a, long step_a, const float* b, long step_b, long count) {
    for (long k = 0; k < count; ++k, a += step_a, b += step_b) {
        vec right[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) right[v] = load(b + v * LANES);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const vec left = broadcast(a + m);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[m][v] = madd<HALF>(sum[m][v], left, right[v]);
        }
    }
}

#if HAS_BF16
// The sums over the lanes of 16 vectors, in the lanes of one.
#define FOLD(left, right, low, high) (__builtin_shufflevector(left, right, low) + __builtin_shufflevector(left, right, high))
#define HALVES_0 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HALVES_1 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define FOURS_0 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define FOURS_1 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
#define TWOS_0 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29
#define TWOS_1 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31
#define ONES_0 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ONES_1 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
inline vec sum_lanes(const vec (&rows)[4][4]) {
    vec eight[8], four[4], two[2];
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r)
        eight[r] = FOLD(rows[r / 2][r % 2 * 2], rows[r / 2][r % 2 * 2 + 1], HALVES_0, HALVES_1);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) four[r] = FOLD(eight[2 * r], eight[2 * r + 1], FOURS_0, FOURS_1);
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r) two[r] = FOLD(four[2 * r], four[2 * r + 1], TWOS_0, TWOS_1);
    return FOLD(two[0], two[1], ONES_0, ONES_1);
}
#endif

struct Shape {
    long batch, channels, height, width, bases, kernel, groups, bands, rows, threads, chunks;
    bool last_x, last_attention, last_out;         // channels last?
    long depth, taps, pad, stride, pixels, plane;  // derived
    long patch;                                    // what one output is made of: depth * taps, and 1 for the bias
    explicit Shape(const int64_t* v)
        : batch(v[0]), channels(v[1]), height(v[2]), width(v[3]), bases(v[4]), kernel(v[5]), groups(v[6]),
          bands(v[7]), rows(v[8]), threads(v[9]), chunks(v[10]),
          last_x(v[11]), last_attention(v[12]), last_out(v[13]) {
        depth = channels / groups;
        taps = kernel * kernel;
        pad = kernel / 2;
        stride = width + 2 * pad;
        pixels = (rows * stride + ROUND - 1) / ROUND * ROUND;
        plane = pixels + 2 * pad * (stride + 1);
        patch = depth * taps + 1;
    }
    long offset(long tap) const { return tap / kernel * stride + tap % kernel; }
    template <bool HALF>
    long words(long terms) const { return HALF ? (terms + 1) / 2 : terms; }
    template <bool HALF>
    long packed() const {  // floats that the packed weights of one group take
        return depth * (words<HALF>(bases) * patch + words<HALF>(patch) * bases);
    }
    long padded_bases() const { return (bases + 2 * LANES - 1) / (2 * LANES) * (2 * LANES); }
    long halo() const { return (rows + 2 * pad) * stride; }  // of a band's part of the gradient of x
};

// Memory of one thread, kept between calls.
struct Scratch {
    float* data = nullptr;
    long size = 0;
    ~Scratch() { std::free(data); }
    float* at_least(long floats) {
        if (floats > size) {
            std::free(data);
            size = floats;
            data = static_cast<float*>(std::aligned_alloc(64, (4 * size + 63) / 64 * 64));
            if (!data) std::abort();
        }
        return data;
    }
};
thread_local Scratch scratch;

// One channel of one image in a tensor of `channels`: dense planes, or pixels that keep their channels together.
template <typename T>
struct Plane {
    T* data;
    long step;  // from pixel to pixel
    Plane(T* tensor, bool last, const Shape& s, long image, long channels, long channel)
        : data(tensor + image * channels * s.height * s.width + channel * (last ? 1 : s.height * s.width)),
          step(last ? channels : 1) {}
};

// Rows [first, first + count) of an image with `pad` zeros to the left and the rest of the stride to the
// right; rows outside the image are zeros, and so is what remains of `length`.
void pack_rows(float* to, Plane<const float> from, const Shape& s, long first, long count, long pad, long length) {
    for (long row = 0; row < count; ++row, to += s.stride) {
        const long y = first + row;
        if (y < 0 || y >= s.height) {
            std::memset(to, 0, 4 * s.stride);
            continue;
        }
        std::memset(to, 0, 4 * pad);
        const float* source = from.data + y * s.width * from.step;
        if (from.step == 1) std::memcpy(to + pad, source, 4 * s.width);
        else for (long column = 0; column < s.width; ++column) to[pad + column] = source[column * from.step];
        std::memset(to + pad + s.width, 0, 4 * (s.stride - pad - s.width));
    }
    std::memset(to, 0, 4 * (length - count * s.stride));
}

void unpack_rows(Plane<float> to, const float* from, const Shape& s, long first, long count) {
    for (long row = 0; row < count; ++row, from += s.stride) {
        float* target = to.data + (first + row) * s.width * to.step;
        if (to.step == 1) std::memcpy(target, from, 4 * s.width);
        else for (long column = 0; column < s.width; ++column) target[column * to.step] = from[column];
    }
}

// Two vectors as bfloat16: as pairs in words (a in the low halves), and as a row each; null is left out.
template <bool HALF>
inline void put(vec a, vec b, float* pairs, uint16_t* row_a, uint16_t* row_b) {
#if HAS_BF16
    alignas(64) static constexpr uint16_t order[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
    _mm512_storeu_si512(pairs, _mm512_permutexvar_epi16(_mm512_load_si512(order), both));
    if (row_a) _mm256_storeu_si256((__m256i*)row_a, _mm512_castsi512_si256(both));
    if (row_b) _mm256_storeu_si256((__m256i*)row_b, _mm512_extracti64x4_epi64(both, 1));
#endif
}

uint32_t bfloat16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return bits >> 16 | 64;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

template <int M>
struct Rows {
    static constexpr int value = M;
};

// Calls f(first, Rows<count>) for chunks of at most 4 (or 8) of `total`.
template <int MOST = 4, typename F>
inline void in_chunks(long total, F f) {
    long first = 0;
    for (; first + MOST <= total; first += MOST) f(first, Rows<MOST>());
    if constexpr (MOST == 8)
        if (first + 4 <= total) f(first, Rows<4>()), first += 4;
    if (total - first == 3) f(first, Rows<3>());
    if (total - first == 2) f(first, Rows<2>());
    if (total - first == 1) f(first, Rows<1>());
}

// Calls f(first, Rows<vectors>) for strips of pixels.
template <int VECTORS = WIDE, typename F>
inline void in_strips(long pixels, F f) {
    long first = 0;
    for (; first + VECTORS * LANES <= pixels; first += VECTORS * LANES) f(first, Rows<VECTORS>());
    if (first < pixels) f(first, Rows<(VECTORS + 1) / 2>());
}

template <bool HALF>
inline float word(float low, float high) {
    if constexpr (!HALF) return low;
    const uint32_t bits = bfloat16(low) | bfloat16(high) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

// The bases of one group in the order they are read: `mix`, where the bases are summed over
// ([output][tap][base][input], then [base][output] of the biases), and `back`, where the patch is
// ([output][tap, input; last the bias][base]).
template <bool HALF>
void pack_weights(float* mix, const Shape& s, long g, const float* weight, const float* bias) {
    const long inner = s.patch - 1, words = s.words<HALF>(s.bases), patch_words = s.words<HALF>(s.patch);
    float* back = mix + words * s.depth * s.patch;
    std::vector<float> zeros(s.patch), reordered(s.patch + 1);
    for (long o = 0; o < s.depth; ++o) {
        const long channel = g * s.depth + o;
        auto row = [&](long n) { return n < s.bases ? weight + (n * s.channels + channel) * inner : zeros.data(); };
        auto shift = [&](long n) { return n < s.bases ? bias[n * s.channels + channel] : 0.0f; };
        for (long k = 0; k < words; ++k) {
            const float *low = row(HALF ? 2 * k : k), *high = HALF ? row(2 * k + 1) : low;
            for (long i = 0; i < s.depth; ++i)
                for (long tap = 0; tap < s.taps; ++tap)
                    mix[((o * s.taps + tap) * words + k) * s.depth + i] =
                        word<HALF>(low[i * s.taps + tap], high[i * s.taps + tap]);
            mix[(s.depth * s.taps * words + k) * s.depth + o] =
                word<HALF>(shift(HALF ? 2 * k : k), HALF ? shift(2 * k + 1) : 0);
        }
        for (long n = 0; n < s.bases; ++n) {
            for (long i = 0; i < s.depth; ++i)
                for (long tap = 0; tap < s.taps; ++tap) reordered[tap * s.depth + i] = row(n)[i * s.taps + tap];
            reordered[inner] = shift(n);
            reordered[s.patch] = 0;
            for (long k = 0; k < patch_words; ++k)
                back[(o * patch_words + k) * s.bases + n] =
                    HALF ? word<HALF>(reordered[2 * k], reordered[2 * k + 1]) : reordered[k];
        }
    }
}

template <bool HALF>
void pack_all(float* packed, const Shape& s, const float* weight, const float* bias) {
#pragma omp parallel for num_threads(s.threads)
    for (long g = 0; g < s.groups; ++g) pack_weights<HALF>(packed + g * s.packed<HALF>(), s, g, weight, bias);
}

// One band of rows of one image; its channels are handled group by group.
template <bool HALF>
struct Band {
    static constexpr int NARROW = !HALF && WIDE == 4 ? 2 : WIDE;
    const Shape& s;
    const long words, patch, patch_words;  // bases, and what each is multiplied with (last: 1, for the bias)
    float *attention, *attention_rows, *x, *image, *spread, *products, *product_rows, *d_attention;
    const float *mix = nullptr, *back = nullptr;  // see pack_weights
    long index = 0, first = 0, count = 0;         // the image, and its rows
    std::vector<long> reach;                      // where each term of a patch lies in x, from its pixel

    Band(const Shape& shape, bool training)
        : s(shape), words(s.words<HALF>(s.bases)), patch(s.patch), patch_words(s.words<HALF>(s.patch)) {
        const long train = training ? 1 : 0;
        for (long j = 0; j < patch - 1; ++j) reach.push_back(j % s.depth * s.plane + s.offset(j / s.depth));
        const long row = HALF ? s.pixels / 2 : s.pixels;
        struct Need {
            float*& block;
            long floats;
        } needs[] = {
            {attention, (words + 3) * s.pixels},
            {x, s.depth * s.plane},
            {image, (s.depth > 2 ? s.depth : 2) * s.pixels},
            {attention_rows, train * (HALF ? (s.bases + 4) * row : s.padded_bases() * s.pixels)},
            {spread, train * s.depth * s.plane},
            {products, train * s.depth * patch_words * WIDE * LANES},
            {product_rows, HALF ? train * (patch + 4) * row : 0},
            {d_attention, train * s.bases * s.pixels},
        };
        long total = 0;
        for (auto& need : needs) total += (need.floats + LANES - 1) / LANES * LANES;
        float* next = scratch.at_least(total);
        for (auto& need : needs) need.block = next, next += (need.floats + LANES - 1) / LANES * LANES;
    }

    long row_words() const { return HALF ? s.pixels / 2 : s.pixels; }
    uint16_t* row_of(float* rows, long index) const { return reinterpret_cast<uint16_t*>(rows) + index * s.pixels; }

    void start(long task, const float* all_attention, bool training) {
        index = task / s.bands;
        first = task % s.bands * s.rows;
        count = s.rows < s.height - first ? s.rows : s.height - first;
        auto pack = [&](float* to, long n) {
            pack_rows(to, {all_attention, s.last_attention, s, index, s.bases, n}, s, first, count, 0, s.pixels);
        };
        for (long n = 0; n < s.bases; n += HALF ? 2 : 1) {
            if constexpr (!HALF) {
                pack(attention + n * s.pixels, n);
                if (training)
                    for (long p = 0; p < s.pixels; ++p)
                        attention_rows[p * s.padded_bases() + n] = attention[n * s.pixels + p];
                continue;
            }
            float *even = image, *odd = image + s.pixels;
            pack(even, n);
            if (n + 1 < s.bases) pack(odd, n + 1);
            else std::memset(odd, 0, 4 * s.pixels);
            uint16_t* row = training ? row_of(attention_rows, n) : nullptr;
            for (long p = 0; p < s.pixels; p += LANES)
                put<HALF>(load(even + p), load(odd + p), attention + n / 2 * s.pixels + p, row ? row + p : nullptr,
                          row ? row + s.pixels + p : nullptr);
        }
        if (training) std::memset(d_attention, 0, 4 * s.bases * s.pixels);
    }

    void group(long g, const float* all_x, const float* packed) {
        for (long i = 0; i < s.depth; ++i)
            pack_rows(x + i * s.plane, {all_x, s.last_x, s, index, s.channels, g * s.depth + i}, s, first - s.pad,
                      count + 2 * s.pad, s.pad, s.plane);
        mix = packed + g * s.packed<HALF>();
        back = mix + words * s.depth * patch;
    }

    void forward(long g, float* out) {
        in_strips(s.pixels, [&](long p, auto wide) {
            constexpr int V = wide.value;
            in_chunks(s.depth, [&](long o, auto chunk) {
                vec sum[chunk.value][V] = {};
                multiply<HALF>(sum, mix + s.depth * s.taps * words * s.depth + o, s.depth, attention + p, s.pixels, words);
                for (int m = 0; m < chunk.value; ++m)
                    for (int v = 0; v < V; ++v) store(image + (o + m) * s.pixels + p + v * LANES, sum[m][v]);
            });
            for (long o = 0; o < s.depth; ++o) {
                vec total[V];
                for (int v = 0; v < V; ++v) total[v] = load(image + o * s.pixels + p + v * LANES);
                for (long tap = 0; tap < s.taps; ++tap)
                    in_chunks(s.depth, [&](long i, auto chunk) {
                        vec sum[chunk.value][V] = {};
                        multiply<HALF>(sum, mix + (o * s.taps + tap) * words * s.depth + i, s.depth, attention + p,
                                       s.pixels, words);
                        for (int m = 0; m < chunk.value; ++m)
                            for (int v = 0; v < V; ++v)
                                total[v] += sum[m][v] * load(x + (i + m) * s.plane + s.offset(tap) + p + v * LANES);
                    });
                for (int v = 0; v < V; ++v) store(image + o * s.pixels + p + v * LANES, total[v]);
            }
        });
        for (long o = 0; o < s.depth; ++o)
            unpack_rows({out, s.last_x, s, index, s.channels, g * s.depth + o}, image + o * s.pixels, s, first, count);
    }

    // Needs start() and group(). Adds to d_terms (of this chunk) and d_attention, writes d_x's halo.
    void backward(long g, const float* d_out, float* d_x, float* d_terms) {
        for (long o = 0; o < s.depth; ++o)
            pack_rows(image + o * s.pixels, {d_out, s.last_out, s, index, s.channels, g * s.depth + o}, s, first, count, 0,
                      s.pixels);
        std::memset(spread, 0, 4 * s.depth * s.plane);
        in_strips(s.pixels, [&](long p, auto wide) {
            constexpr int V = wide.value;
            for (long tap = 0; tap < s.taps; ++tap)
                in_chunks(s.depth, [&](long i, auto chunk) {
                    vec total[chunk.value][V] = {};
                    for (long o = 0; o < s.depth; ++o) {
                        vec sum[chunk.value][V] = {};
                        multiply<HALF>(sum, mix + (o * s.taps + tap) * words * s.depth + i, s.depth, attention + p,
                                       s.pixels, words);
                        for (int v = 0; v < V; ++v) {
                            const vec d = load(image + o * s.pixels + p + v * LANES);
                            for (int m = 0; m < chunk.value; ++m) total[m][v] += sum[m][v] * d;
                        }
                    }
                    for (int m = 0; m < chunk.value; ++m)
                        for (int v = 0; v < V; ++v) {
                            float* to = spread + (i + m) * s.plane + s.offset(tap) + p + v * LANES;
                            store(to, load(to) + total[m][v]);
                        }
                });
        });
        for (long i = 0; i < s.depth; ++i)
            std::memcpy(d_x + i * s.halo(), spread + i * s.plane, 4 * (count + 2 * s.pad) * s.stride);
        // In float32 (if registers allow) half the vectors, twice the rows, and the products of all outputs of a strip at once: they
        // stay in the first-level cache, and the sums in registers.
        const long together = HALF ? 1 : s.depth;
        for (long o = 0; o < s.depth; o += together) {
            in_strips<NARROW>(s.pixels, [&](long p, auto wide) {
                constexpr int V = wide.value;
                for (long k = 0; k < together; ++k)
                    multiply_patch<V>(image + (o + k) * s.pixels + p, p, products + k * patch_words * V * LANES);
                in_chunks<NARROW < WIDE ? 8 : 4>(s.bases, [&](long n, auto chunk) {
                    vec sum[chunk.value][V];
                    float* to = d_attention + n * s.pixels + p;
                    for (int m = 0; m < chunk.value; ++m)
                        for (int v = 0; v < V; ++v) sum[m][v] = load(to + m * s.pixels + v * LANES);
                    multiply<HALF>(sum, back + o * patch_words * s.bases + n, s.bases, products, V * LANES,
                                   together * patch_words);
                    for (int m = 0; m < chunk.value; ++m)
                        for (int v = 0; v < V; ++v) store(to + m * s.pixels + v * LANES, sum[m][v]);
                });
            });
            for (long k = o; k < o + together; ++k) {
                float* to = d_terms + (g * s.depth + k) * patch * s.padded_bases();
                if constexpr (HALF) correlate(to);
                else outer(k, to);
            }
        }
    }

    // For V vectors of pixels from p on, to[j] = d_out * patch[j], and d_out itself as the last; as bfloat16 also
    // in rows of the whole band.
    template <int V>
    void multiply_patch(const float* d_out, long p, float* to) {
        const long inner = patch - 1;
        vec d[V];
        for (int v = 0; v < V; ++v) d[v] = load(d_out + v * LANES);
        if constexpr (!HALF) {
            for (long j = 0; j < inner; ++j)
                for (int v = 0; v < V; ++v, to += LANES) store(to, d[v] * load(x + reach[j] + p + v * LANES));
            for (int v = 0; v < V; ++v, to += LANES) store(to, d[v]);
        } else {
            uint16_t* row = row_of(product_rows, 0) + p;
            long j = 0;
            for (; j + 2 <= inner; j += 2, row += 2 * s.pixels)
                for (int v = 0; v < V; ++v, to += LANES)
                    put<HALF>(d[v] * load(x + reach[j] + p + v * LANES), d[v] * load(x + reach[j + 1] + p + v * LANES),
                              to, row + v * LANES, row + s.pixels + v * LANES);
            for (int v = 0; v < V; ++v, to += LANES) {
                if (j < inner) put<HALF>(d[v] * load(x + reach[j] + p + v * LANES), d[v], to, row + v * LANES,
                                         row + s.pixels + v * LANES);
                else put<HALF>(d[v], vec{}, to, row + v * LANES, nullptr);
            }
        }
    }

    // d_terms[term][base] of one channel: attention times products, summed over the pixels in their rows.
    void correlate(float* d_terms) {
#if HAS_BF16
        const long step = row_words();
        for (long j = 0; j < patch; j += 4)
            for (long n = 0; n < s.bases; n += 4) {
                vec sum[4][4] = {};
                for (long p = 0; p < step; p += LANES) {
                    vec right[4];
#pragma GCC unroll 4
                    for (int m = 0; m < 4; ++m) right[m] = load(product_rows + (j + m) * step + p);
#pragma GCC unroll 4
                    for (int m = 0; m < 4; ++m) {
                        const vec left = load(attention_rows + (n + m) * step + p);
#pragma GCC unroll 4
                        for (int k = 0; k < 4; ++k) sum[m][k] = madd<HALF>(sum[m][k], left, right[k]);
                    }
                }
                const vec result = sum_lanes(sum);
                for (long m = 0; m < 4 && n + m < s.bases; ++m)
                    for (long k = 0; k < 4 && j + k < patch; ++k)
                        d_terms[(j + k) * s.padded_bases() + n + m] += result[4 * m + k];
            }
#endif
    }

    // The same in float32, with bases in the lanes: at every pixel, d_out times attention, times the patch.
    void outer(long o, float* d_terms) {
        const long inner = patch - 1;
        for (long n = 0; n < s.bases; n += 2 * LANES) {
            long j = 0;
            for (; j + TERMS <= inner; j += TERMS) outer_tile<TERMS>(n, o, j, d_terms);
            for (; j < inner; ++j) outer_tile<1>(n, o, j, d_terms);
            outer_tile<0>(n, o, inner, d_terms);
        }
    }

    // For COUNT terms of the patch; none means the bias.
    template <int COUNT>
    void outer_tile(long n, long o, long first_term, float* d_terms) {
        vec sum[COUNT ? COUNT : 1][2] = {};
        const float *d_out = image + o * s.pixels, *a = attention_rows + n;
        const float* term[COUNT + 1];
        for (int k = 0; k < COUNT; ++k) term[k] = x + reach[first_term + k];
        const long step = s.padded_bases();
        for (long p = 0; p < count * s.stride; ++p, a += step) {
            const vec d = broadcast(d_out + p);
            const vec left[2] = {load(a) * d, load(a + LANES) * d};
            if constexpr (COUNT == 0) sum[0][0] += left[0], sum[0][1] += left[1];
#pragma GCC unroll 12
            for (int k = 0; k < COUNT; ++k) {
                const vec right = broadcast(term[k] + p);
                sum[k][0] += left[0] * right;
                sum[k][1] += left[1] * right;
            }
        }
        for (int k = 0; k < (COUNT ? COUNT : 1); ++k)
            for (int half = 0; half < 2; ++half) {
                float* to = d_terms + (first_term + k) * step + n + half * LANES;
                store(to, load(to) + sum[k][half]);
            }
    }
};

// Calls f(chunk, first task, last task) for every chunk of the tasks, which are the bands of all images. Who
// takes which chunk does not matter for the result, so an idle thread takes the next one.
template <typename F>
void share(const Shape& s, F f) {
    const long tasks = s.batch * s.bands;
#pragma omp parallel for schedule(dynamic, 1) num_threads(s.threads)
    for (long chunk = 0; chunk < s.chunks; ++chunk)
        f(chunk, tasks * chunk / s.chunks, tasks * (chunk + 1) / s.chunks);
}

// The gradients of weight and bias: the sums of all chunks, in the order of the weights.
void collect(const Shape& s, const float* d_terms, float* d_weight, float* d_bias) {
    const long size = s.patch * s.padded_bases(), inner = s.patch - 1;
#pragma omp parallel for num_threads(s.threads)
    for (long channel = 0; channel < s.channels; ++channel) {
        std::vector<float> sum(d_terms + channel * size, d_terms + (channel + 1) * size);
        for (long chunk = 1; chunk < s.chunks; ++chunk)
            for (long k = 0; k < size; ++k) sum[k] += d_terms[(chunk * s.channels + channel) * size + k];
        for (long n = 0; n < s.bases; ++n) {
            float* to = d_weight + (n * s.channels + channel) * inner;
            for (long i = 0; i < s.depth; ++i)
                for (long tap = 0; tap < s.taps; ++tap)
                    to[i * s.taps + tap] = sum[(tap * s.depth + i) * s.padded_bases() + n];
            d_bias[n * s.channels + channel] = sum[inner * s.padded_bases() + n];
        }
    }
}

template <bool HALF>
void forward(const Shape& s, const float* x, const float* attention, const float* weight, const float* bias, float* out,
             float* packed) {
    pack_all<HALF>(packed, s, weight, bias);
    share(s, [&](long, long begin, long end) {
        Band<HALF> band(s, false);
        for (long task = begin; task < end; ++task) {
            band.start(task, attention, false);
            for (long g = 0; g < s.groups; ++g) {
                band.group(g, x, packed);
                band.forward(g, out);
            }
        }
    });
}

template <bool HALF>
void backward(const Shape& s, const float* x, const float* attention, const float* weight, const float* bias,
              const float* d_out, float* d_x, float* d_attention, float* d_weight, float* d_bias, float* d_terms,
              float* halos, float* packed) {
    pack_all<HALF>(packed, s, weight, bias);
    const long terms = s.channels * s.patch * s.padded_bases();
    share(s, [&](long chunk, long begin, long end) {
        std::memset(d_terms + chunk * terms, 0, 4 * terms);
        Band<HALF> band(s, true);
        for (long task = begin; task < end; ++task) {
            band.start(task, attention, true);
            for (long g = 0; g < s.groups; ++g) {
                band.group(g, x, packed);
                band.backward(g, d_out, halos + (task * s.channels + g * s.depth) * s.halo(), d_terms + chunk * terms);
            }
            for (long n = 0; n < s.bases; ++n)
                unpack_rows({d_attention, s.last_attention, s, band.index, s.bases, n}, band.d_attention + n * s.pixels, s, band.first,
                            band.count);
        }
    });
    collect(s, d_terms, d_weight, d_bias);
    // Bands overlap by the reach of the kernel: add them up in their order.
#pragma omp parallel for num_threads(s.threads)
    for (long plane = 0; plane < s.batch * s.channels; ++plane) {
        const long image = plane / s.channels, channel = plane % s.channels;
        const Plane<float> to(d_x, s.last_x, s, image, s.channels, channel);
        for (long p = 0; p < s.height * s.width; ++p) to.data[p * to.step] = 0;
        for (long band = 0; band < s.bands; ++band) {
            const float* from = halos + ((image * s.bands + band) * s.channels + channel) * s.halo();
            const long begin = band * s.rows, end = begin + s.rows < s.height ? begin + s.rows : s.height;
            for (long y = begin - s.pad; y < end + s.pad; ++y, from += s.stride) {
                if (y < 0 || y >= s.height) continue;
                float* row = to.data + y * s.width * to.step;
                for (long column = 0; column < s.width; ++column) row[column * to.step] += from[s.pad + column];
            }
        }
    }
}

}  // namespace

extern "C" {

int kernel_basis_has_bfloat16() { return HAS_BF16; }

// All arrays are float32, images dense or with channels last. `half`: products of bfloat16, sums of float32. Working memory: `packed` of
// groups * depth * (bases + 1) * (patch + 1) * 2 with patch = depth * kernel^2 + 1.
void kernel_basis_forward(const int64_t* shape, int half, const float* x, const float* attention,
                          const float* weight, const float* bias, float* out, float* packed) {
    const Shape s(shape);
    (half && HAS_BF16 ? forward<HAS_BF16> : forward<false>)(s, x, attention, weight, bias, out, packed);
}

// More working memory: `d_terms` of chunks * channels * patch * (bases rounded up to 32), `halos` of
// batch * bands * channels * (rows + 2 pad) * (width + 2 pad).
void kernel_basis_backward(const int64_t* shape, int half, const float* x, const float* attention,
                           const float* weight, const float* bias, const float* d_out, float* d_x,
                           float* d_attention, float* d_weight, float* d_bias, float* d_terms, float* halos,
                           float* packed) {
    const Shape s(shape);
    (half && HAS_BF16 ? backward<HAS_BF16> : backward<false>)(s, x, attention, weight, bias, d_out, d_x, d_attention,
                                                              d_weight, d_bias, d_terms, halos, packed);
}
}
