// A product of two float32 matrices, blocked over rows, columns and depth, each block by oneDNN's kernel for small matrices (brgemm).
//
// out (m, n) = a (m, k) b (k, n). The last dimension of out is contiguous; of a and b one dimension is, the other has the given
// stride, and "transposed" says that it is the last one that has it. Transposed factors are packed into contiguous blocks, one of a
// by the thread that multiplies it, all of b beforehand, which all threads share.
//
// The sizes of blocks follow the second cache of a core: rows of a fill a quarter of it and stay, while columns of b stream by, a
// sixteenth of it at a time. The depth is the same everywhere, so every machine adds up in the same order.

#include <torch/csrc/inductor/cpp_prefix.h>

#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace {

// Bytes of a core's second cache, or a MiB where the system does not say.
int64_t second_cache() {
#ifdef _SC_LEVEL2_CACHE_SIZE
    const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (bytes > 0) return std::clamp<int64_t>(bytes, 1 << 18, 1 << 22);
#endif
    return 1 << 20;
}

constexpr int64_t FEWEST_COLUMNS = 32, DEPTH = 1024, LANES = 16;
const int64_t FLOATS_OF_CACHE = second_cache() / static_cast<int64_t>(sizeof(float));
const int64_t ROWS = FLOATS_OF_CACHE / 4 / DEPTH, ENTRIES = FLOATS_OF_CACHE / 16;
constexpr int64_t FEWEST_MULTIPLICATIONS_FOR_THREADS = 3 << 19;

int64_t blocks(int64_t whole, int64_t block) { return (whole + block - 1) / block; }

// Memory that is kept between calls, aligned to a cache line.
struct Scratch {
    std::unique_ptr<float[]> memory;
    int64_t size = 0;

    float* of(int64_t wanted) {
        if (wanted > size) {
            memory.reset(new float[wanted + LANES]);
            size = wanted;
        }
        return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory.get()) + 63) & ~uintptr_t(63));
    }
};

// to (columns, rows) = from (rows, columns), transposed.
void transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t rows, int64_t columns) {
    for (int64_t i = 0; i < rows; i += LANES)
        for (int64_t j = 0; j < columns; j += LANES) {
            const float* source = from + i * from_stride + j;
            float* target = to + j * to_stride + i;
            const int64_t height = std::min(LANES, rows - i), width = std::min(LANES, columns - j);
            if (height == LANES && width == LANES)  // unrolled
                at::vec::transpose_mxn<float, LANES, LANES>(source, from_stride, target, to_stride);
            else
                at::vec::transpose_mxn<float>(source, from_stride, target, to_stride, static_cast<int>(height), static_cast<int>(width));
        }
}

}  // namespace

extern "C" void kernel(const float* a, const float* b, float* out, int64_t m, int64_t n, int64_t k, int64_t a_stride,
                       int64_t b_stride, int64_t a_transposed, int64_t b_transposed) {
    if (n < LANES && n < m && a_transposed) {  // the lanes of vectors along the longer side, where a already has them
        static thread_local Scratch of_out;
        float* transposed = of_out.of(m * n);
        kernel(b, a, transposed, n, m, k, b_stride, a_stride, !b_transposed, 0);
        transpose(transposed, m, out, n, n, m);
        return;
    }
    const int64_t threads = m * n * k < FEWEST_MULTIPLICATIONS_FOR_THREADS ? 1 : omp_get_max_threads();
    // As many blocks of rows for each thread, or, where there are too few rows for that, groups of columns as well.
    const int64_t row_blocks = m < LANES * threads ? blocks(m, ROWS) : blocks(m, ROWS * threads) * threads;
    const int64_t rows = blocks(m, row_blocks), depths = blocks(k, DEPTH);
    const int64_t columns_of_all = blocks(blocks(n, blocks(threads, row_blocks)), LANES) * LANES;
    const int64_t columns = std::min(std::max(FEWEST_COLUMNS, ENTRIES / k / LANES * LANES), columns_of_all);
    const int64_t column_blocks = blocks(n, columns);
    const int64_t groups = std::min(column_blocks, blocks(threads, row_blocks));
    static thread_local Scratch of_b;
    float* packed_b = b_transposed ? of_b.of(column_blocks * columns * k) : nullptr;
    #pragma omp parallel num_threads(threads) if (threads > 1)
    {
        static thread_local Scratch of_a;
        float* packed_a = a_transposed ? of_a.of(rows * std::min(k, DEPTH)) : nullptr;
        if (packed_b) {
            #pragma omp for schedule(static)
            for (int64_t j = 0; j < column_blocks; j++) {
                const int64_t left = j * columns;
                transpose(b + left * b_stride, b_stride, packed_b + left * k, columns, std::min(columns, n - left), k);
            }
        }
        #pragma omp for collapse(2) schedule(static)
        for (int64_t i = 0; i < row_blocks; i++)
            for (int64_t group = 0; group < groups; group++) {
                const int64_t top = i * rows, height = std::min(rows, m - top);
                if (height <= 0) continue;
                for (int64_t d = 0; d < depths; d++) {
                    const int64_t start = d * DEPTH, depth = std::min(DEPTH, k - start);
                    const float* first = a + top * a_stride + start;
                    if (packed_a) {
                        transpose(a + start * a_stride + top, a_stride, packed_a, depth, depth, height);
                        first = packed_a;
                    }
                    for (int64_t j = column_blocks * group / groups; j < column_blocks * (group + 1) / groups; j++) {
                        const int64_t left = j * columns, width = std::min(columns, n - left);
                        const float* second = packed_b ? packed_b + left * k + start * columns : b + start * b_stride + left;
                        at::native::cpublas::brgemm(height, width, depth, packed_a ? depth : a_stride, packed_b ? columns : b_stride, n,
                                                    d > 0, first, second, out + top * n + left, false);
                    }
                }
            }
    }
}
