// Kernel basis attention on the CPU, forward and backward; see kernel_basis.py for the definition.
//
// Rows of an image are handled in bands small enough for the second-level cache. In a band, pixels are
// numbered along rows, 16 in a row make one vector, and panels of four vectors lie together. Rows that are no
// multiple of a vector keep their padding, so that every neighbour lies at a fixed distance, edges included.
// Nothing per pixel and base is ever stored: the mixed kernel of 64 pixels, or what a base alone makes of them, lives in
// registers until it has been applied. Which of the two: the first where bases are summed over (the gradient of x),
// the second where every base counts by itself (the gradient of attention), and forward whichever takes fewer products.
//
// Every sum has a fixed order for a given number of chunks: repeated runs are equal bit for bit.
// Tensors are float32 or bfloat16 and are read and written as they are: no copy of a whole one is made.

#include <cstdint>
#include <vector>

#include "kernel_basis_band.h"
#include "threads.h"

namespace {

// Calls f(chunk, first task, last task) for every chunk of the tasks, which are the bands of all images. Who
// takes which chunk does not matter for the result.
template <typename F>
void share(const Shape& s, F f) {
    const long tasks = s.batch * s.bands;
    in_threads(s.threads, s.chunks,
               [&](long chunk) { f(chunk, tasks * chunk / s.chunks, tasks * (chunk + 1) / s.chunks); });
}

// The gradients of weight and bias: the sums of all chunks, in the order of the weights.
template <typename T>
void collect(const Shape& s, const float* d_terms, T* d_weight, T* d_bias) {
    const long size = s.terms * s.padded_bases, weights = s.depth * s.inner;
    in_threads(s.threads, s.groups, [&](long g) {
        const long step = round_up(s.terms, LANES);
        std::vector<float> sum(step * s.padded_bases), rows(s.padded_bases * step);
        std::memcpy(sum.data(), d_terms + g * size, 4 * size);
        for (long chunk = 1; chunk < s.chunks; ++chunk)
            for (long k = 0; k < size; ++k) sum[k] += d_terms[(chunk * s.groups + g) * size + k];
        for (long r = 0; r < s.terms; r += LANES)
            for (long n = 0; n < s.padded_bases; n += LANES)
                turn(&rows[n * step + r], step, &sum[r * s.padded_bases + n], s.padded_bases);
        for (long n = 0; n < s.bases; ++n) {
            const float* row = &rows[n * step];
            convert(d_weight + (n * s.groups + g) * weights, row, weights);
            convert(d_bias + n * s.channels + g * s.depth, row + weights, s.depth);
        }
    });
}

// The gradient of x: bands overlap by the reach of the kernel; add them up in their order.
template <typename T>
void join(const Shape& s, const float* spreads, T* d_x) {
    in_threads(s.threads, s.batch * s.height, [&](long line) {
        const long image = line / s.height, y = line % s.height;
        const long from_band = y - s.pad < 0 ? 0 : (y - s.pad) / s.rows;
        const long last_band = (y + s.pad) / s.rows < s.bands ? (y + s.pad) / s.rows : s.bands - 1;
        std::vector<float> sums(LANES * s.width);
        std::vector<T> rows(LANES * s.width);
        for (long first = 0; first < s.channels; first += LANES) {
            const long some = s.channels - first < LANES ? s.channels - first : LANES;
            for (long k = 0; k < some; ++k) {
                float* sum = sums.data() + k * s.width;
                for (long band = from_band; band <= last_band; ++band) {
                    const float* from = spreads + ((image * s.bands + band) * s.channels + first + k) * s.plane +
                                        (y - band * s.rows + s.pad) * s.stride + s.pad;
                    if (band == from_band) std::memcpy(sum, from, 4 * s.width);
                    else for (long column = 0; column < s.width; ++column) sum[column] += from[column];
                }
            }
            convert(rows.data(), sums.data(), some * s.width);
            if (s.last_x) {
                T* to = d_x + line * s.width * s.channels + first;
                for (long column = 0; column < s.width; ++column)
                    for (long k = 0; k < some; ++k) to[column * s.channels + k] = rows[k * s.width + column];
            } else {
                for (long k = 0; k < some; ++k)
                    std::memcpy(d_x + ((image * s.channels + first + k) * s.height + y) * s.width, rows.data() + k * s.width,
                                sizeof(T) * s.width);
            }
        }
    });
}

// What a call is given: its shape, then whether products are of bfloat16 (sums are float32 anyway), then addresses.
struct Call {
    const Shape s;
    const bool half;
    void* const* const tensors;
    explicit Call(const int64_t* numbers)
        : s(numbers), half(HAS_BF16 && numbers[18]), tensors(reinterpret_cast<void* const*>(numbers + 19)) {}
};

template <bool HALF>
void forward(const Shape& s, void* const* tensors) {
    const void *x = tensors[0], *attention = tensors[1], *weight = tensors[2], *bias = tensors[3];
    void* out = tensors[4];
    Scratch working;
    float* packed = working.at_least(s.groups * Packing<HALF>(s, false).size);
    pack_all<HALF>(packed, s, weight, bias, false);
    share(s, [&](long, long begin, long end) {
        Band<HALF> band(s, false);
        for (long task = begin; task < end; ++task) {
            band.start(task, attention, false);
            for (long g = 0; g < s.groups; ++g) {
                band.group(g, x, packed, false);
                band.forward(g, out);
            }
        }
    });
}

template <bool HALF>
void backward(const Shape& s, void* const* tensors) {
    const void *x = tensors[0], *attention = tensors[1], *weight = tensors[2], *bias = tensors[3], *d_out = tensors[4];
    void *d_x = tensors[5], *d_attention = tensors[6], *d_weight = tensors[7], *d_bias = tensors[8];
    const long packing = s.groups * Packing<HALF>(s, true).size, terms = s.groups * s.terms * s.padded_bases;
    const long spreading = s.bands > 1 ? s.batch * s.bands * s.channels * s.plane : 0;
    Scratch working;
    float* packed = working.at_least(packing + s.chunks * terms + spreading);
    float *d_terms = packed + packing, *spreads = d_terms + s.chunks * terms;
    pack_all<HALF>(packed, s, weight, bias, true);
    share(s, [&](long chunk, long begin, long end) {
        if (begin == end) std::memset(d_terms + chunk * terms, 0, 4 * terms);
        Band<HALF> band(s, true);
        for (long task = begin; task < end; ++task) {
            band.start(task, attention, true);
            band.fresh = task == begin;
            for (long g = 0; g < s.groups; ++g) {
                band.group(g, x, packed, true);
                band.backward(g, d_out, d_x, spreads + (task * s.channels + g * s.depth) * s.plane, d_terms + chunk * terms);
            }
            band.finish(d_attention);
        }
    });
    with_type(s.half_weight, [&](auto* type) {
        collect(s, d_terms, static_cast<decltype(type)>(d_weight), static_cast<decltype(type)>(d_bias));
    });
    if (s.bands > 1) with_type(s.half_x, [&](auto* type) { join(s, spreads, static_cast<decltype(type)>(d_x)); });
}

}  // namespace

extern "C" {

// Tensors are float32 or bfloat16 as the shape says, images dense or with channels last: x, attention, weight, bias, out.
void kernel_basis_forward(const int64_t* numbers) {
    const Call call(numbers);
    (call.half ? forward<HAS_BF16> : forward<false>)(call.s, call.tensors);
}

// x, attention, weight, bias, d_out, then the gradients of the first four.
void kernel_basis_backward(const int64_t* numbers) {
    const Call call(numbers);
    (call.half ? backward<HAS_BF16> : backward<false>)(call.s, call.tensors);
}
}
