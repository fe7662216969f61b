// Vectors of floats as the processor has them, and bfloat16 beside them: what all compiled code here stands on.
//
// Vectors are those of the compiler (GCC, Clang); only products, conversions and turns of blocks that have an
// instruction of their own name the instruction set.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#if defined(__AVX512F__) || defined(__AVX512BF16__)
#include <immintrin.h>
#endif
#if defined(__AVX512BF16__) && defined(__AVX512VBMI__)
#define HAS_BF16 1
#else
#define HAS_BF16 0
#endif

// For functions that work on registers of their caller.
#define INLINE inline __attribute__((always_inline))

static_assert(sizeof(long) == 8, "sizes of images are counted in these");

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, REGISTERS = 32;
#else
constexpr int LANES = 8, REGISTERS = 16;
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline vec load(const float* from) { return *reinterpret_cast<const loose*>(from); }
inline void store(float* to, vec value) { *reinterpret_cast<loose*>(to) = value; }

// Less nothing, which leaves even a zero its sign: compilers make one instruction of it, of a loop over lanes they do not.
inline vec broadcast(const float* from) { return *from - vec{}; }

// Words are floats, or pairs of bfloat16 along the summed dimension: the same loops serve both.
template <bool HALF>
inline vec madd(vec sum, vec a, vec b) {
#if HAS_BF16
    if constexpr (HALF) return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#endif
    return sum + a * b;
}

// `value` in a register: compilers would rather read it from memory for every product, which takes more loads
// than the processor has.
inline vec held(vec value) {
#ifdef __AVX512F__
    asm("" : "+v"(value));
#elif defined(__AVX__)
    asm("" : "+x"(value));
#endif
    return value;
}

#if HAS_BF16
// Two vectors as pairs of bfloat16, a in the low halves.
inline vec pair(vec a, vec b) {
    alignas(64) static constexpr uint16_t order[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
    return (vec)_mm512_permutexvar_epi16(_mm512_load_si512(order), both);
}
#endif

// A vector of words: `a`, or a and b in pairs.
template <bool HALF>
inline vec as_words(vec a, vec b) {
#if HAS_BF16
    if constexpr (HALF) return pair(a, b);
#endif
    return a;
}

// Of every pair of bfloat16 the first or second.
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
inline vec one_of_pair(vec words, int second) { return (vec)((bits)words << (second ? 0 : 16) & 0xffff0000u); }

// The bits are what memory holds; a type of its own, so that no arithmetic happens by mistake.
struct bfloat16 {
    uint16_t bits;
    bfloat16() = default;
    explicit bfloat16(float value) {
        uint32_t word;
        std::memcpy(&word, &value, 4);
        const uint32_t rounded = (word + 0x7fff + (word >> 16 & 1)) >> 16;
        bits = (word & 0x7fffffff) > 0x7f800000 ? word >> 16 | 64 : rounded;
    }
    operator float() const {
        const uint32_t word = uint32_t(bits) << 16;
        float value;
        std::memcpy(&value, &word, 4);
        return value;
    }
};

template <typename From, typename To>
inline void convert(To* __restrict to, const From* __restrict from, long count) {
    if constexpr (std::is_same_v<From, To>) std::memcpy(to, from, sizeof(To) * count);
    else for (long k = 0; k < count; ++k) to[k] = To(float(from[k]));
}

// Calls f with a null pointer of the type that a tensor's numbers have.
template <typename F>
inline void with_type(bool half, F f) {
    if (half) f(static_cast<bfloat16*>(nullptr));
    else f(static_cast<float*>(nullptr));
}

// to[c][r] = from[r][c] for a block of LANES by LANES words of 32 bits.
inline void turn(float* to, long step_to, const float* from, long step_from) {
#ifdef __AVX512F__
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) a[r] = _mm512_loadu_si512(from + r * step_from);
#pragma GCC unroll 8
    for (int r = 0; r < 16; r += 2) {
        b[r] = _mm512_unpacklo_epi32(a[r], a[r + 1]);
        b[r + 1] = _mm512_unpackhi_epi32(a[r], a[r + 1]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < 16; r += 4) {
        a[r] = _mm512_unpacklo_epi64(b[r], b[r + 2]);
        a[r + 1] = _mm512_unpackhi_epi64(b[r], b[r + 2]);
        a[r + 2] = _mm512_unpacklo_epi64(b[r + 1], b[r + 3]);
        a[r + 3] = _mm512_unpackhi_epi64(b[r + 1], b[r + 3]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
        const __m512i low = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88), low2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88);
        const __m512i high = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xdd), high2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xdd);
        _mm512_storeu_si512(to + c * step_to, _mm512_shuffle_i32x4(low, low2, 0x88));
        _mm512_storeu_si512(to + (4 + c) * step_to, _mm512_shuffle_i32x4(high, high2, 0x88));
        _mm512_storeu_si512(to + (8 + c) * step_to, _mm512_shuffle_i32x4(low, low2, 0xdd));
        _mm512_storeu_si512(to + (12 + c) * step_to, _mm512_shuffle_i32x4(high, high2, 0xdd));
    }
#else
    for (int r = 0; r < LANES; ++r)
        for (int c = 0; c < LANES; ++c) to[c * step_to + r] = from[r * step_from + c];
#endif
}

// to[c][r] = from[r][c] for `rows` by `columns` numbers of any of the types, a block at a time.
template <typename From, typename To>
inline void turn_all(To* to, long step_to, const From* from, long step_from, long rows, long columns) {
    alignas(64) float in[LANES * LANES] = {}, out[LANES * LANES];
    for (long r = 0; r < rows; r += LANES)
        for (long c = 0; c < columns; c += LANES) {
            const long height = rows - r < LANES ? rows - r : LANES, width = columns - c < LANES ? columns - c : LANES;
            for (long k = 0; k < height; ++k) convert(in + k * LANES, from + (r + k) * step_from + c, width);
            turn(out, LANES, in, LANES);
            for (long k = 0; k < width; ++k) convert(to + (c + k) * step_to + r, out + k * LANES, height);
        }
}

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

}  // namespace
