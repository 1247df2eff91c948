// The gradient of a depthwise convolution towards its kernels, on NHWC float32.
//
// Each number of a kernel is a sum, over all outputs, of the output's gradient times one pixel. Channels lie side by
// side, so a vector holds neighbouring channels, and the sums of a row of a kernel stay in registers along a row of
// outputs. Each channel is summed by one thread and in one order: the bits do not depend on the number of threads.
//
// Layouts: x (b, h, w, c), gradient (b, h_out, w_out, c), result (side, side, c).

#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef _OPENMP
#include <omp.h>
#endif

struct Shape {
    int64_t images, channels, height, width, out_height, out_width, stride, before;
};

// Adds to `sums` what one row of outputs gives for one row of the kernels, over LANES channels.
template <int SIDE, int LANES>
static void add_row(const float *pixels, const float *gradient, const Shape &s, float *sums) {
    typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
    const int64_t c = s.channels;
    // Outputs from `first` on and before `last` have all their pixels inside the row.
    const int64_t first = std::min(s.out_width, (s.before + s.stride - 1) / s.stride);
    const int64_t room = s.width + s.before - SIDE;
    const int64_t last = std::max(first, std::min(s.out_width, room < 0 ? 0 : room / s.stride + 1));
    Vector sum[SIDE] = {};
    auto edge = [&](int64_t from, int64_t to) {
        for (int64_t x = from; x < to; x++) {
            const Vector g = *reinterpret_cast<const Vector *>(gradient + x * c);
            for (int k = 0; k < SIDE; k++) {
                const int64_t column = x * s.stride - s.before + k;
                if (column >= 0 && column < s.width)
                    sum[k] += g * *reinterpret_cast<const Vector *>(pixels + column * c);
            }
        }
    };
    edge(0, first);
    for (int64_t x = first; x < last; x++) {
        const Vector g = *reinterpret_cast<const Vector *>(gradient + x * c);
        const float *window = pixels + (x * s.stride - s.before) * c;
        for (int k = 0; k < SIDE; k++) sum[k] += g * *reinterpret_cast<const Vector *>(window + k * c);
    }
    edge(last, s.out_width);
    for (int k = 0; k < SIDE; k++) *reinterpret_cast<Vector *>(sums + k * c) += sum[k];
}

template <int SIDE, int LANES>
static void towards_kernels(const float *x, const float *gradient, const Shape &s, float *result, int threads) {
    const int64_t c = s.channels, blocks = c / LANES;
    std::memset(result, 0, sizeof(float) * SIDE * SIDE * c);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++) {
        const int64_t from = blocks * thread / threads * LANES, to = blocks * (thread + 1) / threads * LANES;
        for (int64_t image = 0; image < s.images; image++)
            for (int64_t y = 0; y < s.out_height; y++)
                for (int64_t block = from; block < to; block += LANES)
                    for (int k = 0; k < SIDE; k++) {
                        const int64_t row = y * s.stride - s.before + k;
                        if (row < 0 || row >= s.height) continue;
                        add_row<SIDE, LANES>(x + (image * s.height + row) * s.width * c + block,
                                             gradient + (image * s.out_height + y) * s.out_width * c + block, s,
                                             result + k * SIDE * c + block);
                    }
    }
}

// Returns 0 where there is no such kernel: sides are 3, 5, 7 or 9, and channels a multiple of 8.
extern "C" int depthwise_towards_kernels(const float *x, const float *gradient, float *result, int64_t images,
                                         int64_t channels, int64_t height, int64_t width, int64_t out_height,
                                         int64_t out_width, int64_t stride, int64_t before, int64_t side, int threads) {
    const Shape s{images, channels, height, width, out_height, out_width, stride, before};
    if (channels % 8) return 0;
    const bool wide = channels % 16 == 0;
    switch (side) {
#define CASE(SIDE)                                                                \
    case SIDE:                                                                    \
        if (wide) towards_kernels<SIDE, 16>(x, gradient, s, result, threads);     \
        else towards_kernels<SIDE, 8>(x, gradient, s, result, threads);           \
        return 1;
        CASE(3) CASE(5) CASE(7) CASE(9)
#undef CASE
    }
    return 0;
}
