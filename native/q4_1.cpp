// Multiplies Q4_1 weights with Q8_1 activations on processors with AVX-512 VNNI.
//
// llama.cpp has no matrix kernel for this pair of types: it takes a dot product for each weight row and each column,
// so that every weight is unpacked again for every token of a batch. Here sixteen weight rows lie in the sixteen
// lanes of a register; they are unpacked once for all columns, and a block's products are summed as integers, with
// one conversion for sixteen rows.
//
// The arithmetic is that of ggml_vec_dot_q4_1_q8_1: for each block d4*d8*sum(q4*q8) + m4*s8, added up in floats.

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "simd-mappings.h"
#include "llamafile/sgemm.h"

#include <cstdint>
#include <cstring>
#include <algorithm>
#include <vector>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)

#include <immintrin.h>

namespace {

constexpr int64_t LANES = 16;
// Blocks of 32 weights that are unpacked at a time: 20 KiB, so that they stay in the first cache.
constexpr int64_t PACKED_MAX = 32;
constexpr int COLUMNS = 8;
// Below so many multiplications a meeting of the threads costs more than an even share of the work is worth.
constexpr int64_t DYNAMIC_MIN = int64_t(1) << 22;

// One block of sixteen rows. `q[j]` holds elements 4j to 4j+3 of each row as bytes.
struct alignas(64) Packed {
    __m512i q[8];
    __m512 d;
    __m512 m;
};

// Sixteen bytes of each row, as four registers that hold the same four bytes of all rows, in the order of the rows.
struct Quads {
    __m512i of[4];
};

inline __m512i four_rows(const char * row, int64_t stride) {
    const int64_t apart = 4 * stride;
    __m512i rows = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *) row));
    rows = _mm512_inserti32x4(rows, _mm_loadu_si128((const __m128i *) (row + apart)), 1);
    rows = _mm512_inserti32x4(rows, _mm_loadu_si128((const __m128i *) (row + 2 * apart)), 2);
    return _mm512_inserti32x4(rows, _mm_loadu_si128((const __m128i *) (row + 3 * apart)), 3);
}

inline Quads transpose(const char * row, int64_t stride) {
    const __m512i a = four_rows(row, stride);
    const __m512i b = four_rows(row + stride, stride);
    const __m512i c = four_rows(row + 2 * stride, stride);
    const __m512i d = four_rows(row + 3 * stride, stride);
    const __m512i ab_low = _mm512_unpacklo_epi32(a, b);
    const __m512i ab_high = _mm512_unpackhi_epi32(a, b);
    const __m512i cd_low = _mm512_unpacklo_epi32(c, d);
    const __m512i cd_high = _mm512_unpackhi_epi32(c, d);
    return { {
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    } };
}

inline void unpack(const block_q4_1 * block, int64_t stride, Packed & out) {
    const char * at = (const char *) block;
    // The two halves at the beginning of a block, then its sixteen bytes of weights.
    const __m512i scales = transpose(at, stride).of[0];
    const Quads weights = transpose(at + offsetof(block_q4_1, qs), stride);
    const __m512i low = _mm512_set1_epi8(15);
    for (int j = 0; j < 4; j++) {
        out.q[j] = _mm512_and_si512(weights.of[j], low);
        out.q[4 + j] = _mm512_and_si512(_mm512_srli_epi16(weights.of[j], 4), low);
    }
    out.d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(scales));
    out.m = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(scales, 16)));
}

// Scale and scaled sum of a block of activations.
struct Scales {
    float d;
    float s;
};

inline __m512i quad_of(const block_q8_1 & block, int j) {
    int32_t quad;
    memcpy(&quad, block.qs + 4 * j, sizeof(quad));
    return _mm512_set1_epi32(quad);
}

template <int N>
void columns(const Packed * packed, int64_t blocks, const block_q8_1 * b, int64_t ldb, const Scales * scales, int64_t k,
             float * c, int64_t ldc, bool first) {
    __m512 sum[N];
    for (int n = 0; n < N; n++) {
        sum[n] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(c + n * ldc);
    }
    for (int64_t i = 0; i < blocks; i++) {
        __m512i dots[N];
        for (int n = 0; n < N; n++) {
            dots[n] = _mm512_setzero_si512();
        }
        for (int j = 0; j < 8; j++) {
            const __m512i weights = packed[i].q[j];
            for (int n = 0; n < N; n++) {
                dots[n] = _mm512_dpbusd_epi32(dots[n], weights, quad_of(b[n * ldb + i], j));
            }
        }
        for (int n = 0; n < N; n++) {
            const Scales & by = scales[n * k + i];
            const __m512 d = _mm512_mul_ps(packed[i].d, _mm512_set1_ps(by.d));
            sum[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[n]), d, sum[n]);
            sum[n] = _mm512_fmadd_ps(packed[i].m, _mm512_set1_ps(by.s), sum[n]);
        }
    }
    for (int n = 0; n < N; n++) {
        _mm512_storeu_ps(c + n * ldc, sum[n]);
    }
}

using Columns = decltype(&columns<1>);
constexpr Columns COLUMNS_OF[COLUMNS + 1] = {
    nullptr,    columns<1>, columns<2>, columns<3>, columns<4>, columns<5>, columns<6>, columns<7>, columns<8>,
};

// One column: nothing is unpacked twice, so nothing is stored. The sums are rounded as in `columns`, so that an answer
// does not depend on what else is in its batch.
void one_column(const block_q4_1 * a, int64_t stride, int64_t k, const block_q8_1 * b, float * c) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < k; i++) {
        Packed packed;
        unpack(a + i, stride, packed);
        // Two chains, as one would wait for itself.
        __m512i even = _mm512_setzero_si512();
        __m512i odd = _mm512_setzero_si512();
        for (int j = 0; j < 8; j += 2) {
            even = _mm512_dpbusd_epi32(even, packed.q[j], quad_of(b[i], j));
            odd = _mm512_dpbusd_epi32(odd, packed.q[j + 1], quad_of(b[i], j + 1));
        }
        const __m512 d = _mm512_mul_ps(packed.d, _mm512_set1_ps(GGML_CPU_FP16_TO_FP32(b[i].d)));
        sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(even, odd)), d, sum);
        sum = _mm512_fmadd_ps(packed.m, _mm512_set1_ps(GGML_CPU_FP16_TO_FP32(b[i].s)), sum);
    }
    _mm512_storeu_ps(c, sum);
}

void many_columns(const block_q4_1 * a, int64_t stride, int64_t k, const block_q8_1 * b, int64_t ldb, int64_t n,
                  const Scales * scales, float * c, int64_t ldc) {
    Packed packed[PACKED_MAX];
    for (int64_t from = 0; from < k; from += PACKED_MAX) {
        const int64_t blocks = std::min(PACKED_MAX, k - from);
        for (int64_t i = 0; i < blocks; i++) {
            unpack(a + from + i, stride, packed[i]);
        }
        for (int64_t j = 0; j < n; j += COLUMNS) {
            const int64_t count = std::min<int64_t>(COLUMNS, n - j);
            COLUMNS_OF[count](packed, blocks, b + j * ldb + from, ldb, scales + j * k + from, k, c + j * ldc, ldc,
                              from == 0);
        }
    }
}

void multiply(const ggml_compute_params * params, int64_t m, int64_t n, int64_t k, const block_q4_1 * a, int64_t lda,
              const block_q8_1 * b, int64_t ldb, float * c, int64_t ldc) {
    static thread_local std::vector<Scales> scales;
    if (n > 1) {
        scales.resize(n * k);
        for (int64_t j = 0; j < n; j++) {
            for (int64_t i = 0; i < k; i++) {
                const block_q8_1 & block = b[j * ldb + i];
                scales[j * k + i] = { GGML_CPU_FP16_TO_FP32(block.d), GGML_CPU_FP16_TO_FP32(block.s) };
            }
        }
    }
    const int64_t stride = lda * sizeof(block_q4_1);
    const int64_t panels = m / LANES;
    const auto panel = [&](int64_t at) {
        const block_q4_1 * rows = a + at * LANES * lda;
        float * out = c + at * LANES;
        if (n == 1) {
            one_column(rows, stride, k, b, out);
        } else {
            many_columns(rows, stride, k, b, ldb, n, scales.data(), out, ldc);
        }
    };
    if (params->nth == 1 || m * n * k * QK4_1 < DYNAMIC_MIN) {
        const int64_t end = panels * (params->ith + 1) / params->nth;
        for (int64_t at = panels * params->ith / params->nth; at < end; at++) {
            panel(at);
        }
        return;
    }
    // Whoever is ready takes the next few rows: a thread may have lost its processor for a while.
    const int64_t each = std::max<int64_t>(1, panels / (params->nth * 8));
    const int64_t shares = (panels + each - 1) / each;
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
    for (int64_t share = params->ith; share < shares; share = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t end = std::min(panels, (share + 1) * each);
        for (int64_t at = share * each; at < end; at++) {
            panel(at);
        }
    }
    // The caller may multiply once more with the same counter.
    ggml_barrier(params->threadpool);
}

}  // namespace

#define HONSHU_HAS_Q4_1

#endif

extern "C" bool honshu_sgemm(const ggml_compute_params * params, int64_t m, int64_t n, int64_t k, const void * a,
                             int64_t lda, const void * b, int64_t ldb, void * c, int64_t ldc, int a_type, int b_type,
                             int c_type) {
#ifdef HONSHU_HAS_Q4_1
    if (a_type == GGML_TYPE_Q4_1 && b_type == GGML_TYPE_Q8_1 && c_type == GGML_TYPE_F32 && m % LANES == 0) {
        multiply(params, m, n, k, (const block_q4_1 *) a, lda, (const block_q8_1 *) b, ldb, (float *) c, ldc);
        return true;
    }
#endif
    return llamafile_sgemm(params, m, n, k, a, lda, b, ldb, c, ldc, a_type, b_type, c_type);
}
