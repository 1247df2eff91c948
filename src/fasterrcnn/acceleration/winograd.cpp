// Winograd F(4x4, 3x3) for stride-1 3x3 convolutions on NHWC float32 (Lavin & Gray 2016), and bias.
//
// A tile of 4x4 outputs needs 6x6 inputs. Both are transformed, channel by channel; in between stand 36 matrix
// products, one for each of the 6x6 positions: 36 multiplications for 16 outputs, where the direct sum needs 144.
// Tiles are worked on in chunks whose transforms stay in the processor's caches.
//
// Layouts: input (b, h, w, c), output (b, h, w, k), transformed weights (36, k / WIDE, c, WIDE),
// transformed tiles (36, tiles, c) and (36, tiles, k), each of the 36 a cache line further than it need be: at a
// power of two they would all fall into the same sets of the cache.

#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef _OPENMP
#include <omp.h>
#define THREAD_NUMBER omp_get_thread_num
#else
static int THREAD_NUMBER() { return 0; }
#endif

#ifdef __AVX512F__
constexpr int LANES = 16, ROWS = 12;  // 24 sums in 32 registers
#else
constexpr int LANES = 8, ROWS = 6;    // 12 sums in 16 registers
#endif
constexpr int WIDE = 2 * LANES, PAD = 16;
typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline Vector load(const float *from) { return *reinterpret_cast<const Vector *>(from); }
static inline void store(float *to, Vector value) { *reinterpret_cast<Vector *>(to) = value; }

struct Shape {
    int64_t height, width, channels, outputs, rows, columns;  // rows and columns of tiles
};

// One dimension of B^T d B.
static inline void transform_input(const Vector *d, int step, Vector *out, int out_step) {
    const Vector a = d[4 * step] - 4 * d[2 * step], b = d[3 * step] - 4 * d[step];
    const Vector c = d[4 * step] - d[2 * step], e = 2 * (d[3 * step] - d[step]);
    out[0] = 4 * d[0] - 5 * d[2 * step] + d[4 * step];
    out[out_step] = a + b;
    out[2 * out_step] = a - b;
    out[3 * out_step] = c + e;
    out[4 * out_step] = c - e;
    out[5 * out_step] = 4 * d[step] - 5 * d[3 * step] + d[5 * step];
}

// One dimension of A^T m A.
static inline void transform_output(const Vector *m, int step, Vector *out, int out_step) {
    const Vector a = m[step] + m[2 * step], b = m[step] - m[2 * step];
    const Vector c = m[3 * step] + m[4 * step], e = m[3 * step] - m[4 * step];
    out[0] = m[0] + a + c;
    out[out_step] = b + 2 * e;
    out[2 * out_step] = a + 4 * c;
    out[3 * out_step] = b + 8 * e + m[5 * step];
}

static void gather_tile(const float *image, const Shape &s, int64_t row, int64_t column, float *to, int64_t stride) {
    const int64_t top = 4 * row - 1, left = 4 * column - 1;
    for (int64_t c = 0; c < s.channels; c += LANES) {
        Vector d[36], half[36], whole[6];
        for (int y = 0; y < 6; y++)
            for (int x = 0; x < 6; x++) {
                const int64_t v = top + y, u = left + x;
                const bool inside = v >= 0 && v < s.height && u >= 0 && u < s.width;
                d[6 * y + x] = inside ? load(image + (v * s.width + u) * s.channels + c) : Vector{};
            }
        for (int x = 0; x < 6; x++) transform_input(d + x, 6, half + x, 6);
        for (int y = 0; y < 6; y++) {
            transform_input(half + 6 * y, 1, whole, 1);
            for (int x = 0; x < 6; x++) store(to + (6 * y + x) * stride + c, whole[x]);
        }
    }
}

static void scatter_tile(const float *from, int64_t stride, const Shape &s, int64_t row, int64_t column,
                         const float *bias, float *image) {
    for (int64_t k = 0; k < s.outputs; k += LANES) {
        Vector m[36], half[24], line[4];
        for (int i = 0; i < 36; i++) m[i] = load(from + i * stride + k);
        for (int x = 0; x < 6; x++) transform_output(m + x, 6, half + x, 6);
        const Vector offset = load(bias + k);
        for (int y = 0; y < 4 && 4 * row + y < s.height; y++) {
            transform_output(half + 6 * y, 1, line, 1);
            for (int x = 0; x < 4 && 4 * column + x < s.width; x++) {
                store(image + ((4 * row + y) * s.width + 4 * column + x) * s.outputs + k, line[x] + offset);
            }
        }
    }
}

// (COUNT, c) times (c, WIDE): sums stay in registers.
template <int COUNT>
static void multiply(const float *tiles, const float *weights, int64_t channels, float *out, int64_t outputs) {
    Vector sums[COUNT][2] = {};
    for (int64_t c = 0; c < channels; c++) {
        const Vector left = load(weights + c * WIDE), right = load(weights + c * WIDE + LANES);
        for (int i = 0; i < COUNT; i++) {
            const float value = tiles[i * channels + c];
            sums[i][0] += left * value;
            sums[i][1] += right * value;
        }
    }
    for (int i = 0; i < COUNT; i++) {
        store(out + i * outputs, sums[i][0]);
        store(out + i * outputs + LANES, sums[i][1]);
    }
}

extern "C" int64_t winograd_lanes() { return LANES; }

// Floats of working memory that each thread needs.
extern "C" int64_t winograd_workspace(int64_t channels, int64_t outputs, int64_t chunk) {
    const int64_t rounded = (chunk + ROWS - 1) / ROWS * ROWS;
    return 36 * (rounded * (channels + outputs) + 2 * PAD);
}

extern "C" void winograd_convolution(const float *input, const float *weights, const float *bias, float *output,
                                     int64_t images, int64_t height, int64_t width, int64_t channels,
                                     int64_t outputs, int64_t chunk, float *workspace, int threads) {
    const Shape s{height, width, channels, outputs, (height + 3) / 4, (width + 3) / 4};
    const int64_t each = s.rows * s.columns, tiles = images * each, chunks = (tiles + chunk - 1) / chunk;
    const int64_t rounded = (chunk + ROWS - 1) / ROWS * ROWS;
    const int64_t in_stride = rounded * channels + PAD, out_stride = rounded * outputs + PAD;
    const int64_t own = winograd_workspace(channels, outputs, chunk);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t part = 0; part < chunks; part++) {
        float *in = workspace + THREAD_NUMBER() * own, *out = in + 36 * in_stride;
        const int64_t first = part * chunk, count = std::min(chunk, tiles - first);
        for (int64_t t = 0; t < count; t++) {
            const int64_t image = (first + t) / each, tile = (first + t) % each;
            gather_tile(input + image * height * width * channels, s, tile / s.columns, tile % s.columns,
                        in + t * channels, in_stride);
        }
        for (int position = 0; position < 36; position++)
            for (int64_t k = 0; k < outputs; k += WIDE) {
                const float *panel = weights + (position * outputs + k) * channels;
                const float *from = in + position * in_stride;
                float *to = out + position * out_stride + k;
                for (int64_t t = 0; t < count; t += ROWS)  // rows beyond the last tile hold old numbers: nobody reads
                    multiply<ROWS>(from + t * channels, panel, channels, to + t * outputs, outputs);
            }
        for (int64_t t = 0; t < count; t++) {
            const int64_t image = (first + t) / each, tile = (first + t) % each;
            scatter_tile(out + t * outputs, out_stride, s, tile / s.columns, tile % s.columns, bias,
                         output + image * height * width * outputs);
        }
    }
}
