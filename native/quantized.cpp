// Multiplies Q4_1 weights with Q8_1 activations, and Q8_0 with Q8_0, on processors with AVX-512 VNNI.
//
// llama.cpp has no matrix kernel for the first pair of types: it takes a dot product for each weight row and each
// column, so that every weight is unpacked again for every token of a batch. For the second it has one that spends an
// instruction on signs for every product. Here sixteen weight rows lie in the sixteen lanes of a register; they are
// unpacked once for all columns, and a block's products are summed as integers, with one conversion for sixteen rows.
//
// The arithmetic is that of ggml_vec_dot_q4_1_q8_1, for each block d4*d8*sum(q4*q8) + m4*s8, and of
// ggml_vec_dot_q8_0_q8_0, d*d8*sum(q*q8), added up in floats. The processor multiplies unsigned by signed bytes, so
// Q8_0 weights are raised by 128, and a column's sum of activations, 128 times, is taken off again.

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

// What a block of activations brings: its scale, its scaled sum, and the integer from which sums of products begin.
struct Scales {
    float d;
    float s;
    int32_t from;
};

// What a format of weights is: its blocks, the activations that it is multiplied with, and how a block of sixteen rows
// is unpacked.
struct Q4_1 {
    using Weights = block_q4_1;
    using Activations = block_q8_1;
    static constexpr bool HAS_LEAST = true;

    static inline void unpack(const Weights * block, int64_t stride, Packed & out) {
        const char * at = (const char *) block;
        // The two halves at the beginning of a block, then its sixteen bytes of weights.
        const __m512i scales = transpose(at, stride).of[0];
        const Quads weights = transpose(at + offsetof(Weights, qs), stride);
        const __m512i low = _mm512_set1_epi8(15);
        for (int j = 0; j < 4; j++) {
            out.q[j] = _mm512_and_si512(weights.of[j], low);
            out.q[4 + j] = _mm512_and_si512(_mm512_srli_epi16(weights.of[j], 4), low);
        }
        out.d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(scales));
        out.m = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(scales, 16)));
    }

    static inline Scales scales(const Activations & block) {
        return { GGML_CPU_FP16_TO_FP32(block.d), GGML_CPU_FP16_TO_FP32(block.s), 0 };
    }
};

struct Q8_0 {
    using Weights = block_q8_0;
    using Activations = block_q8_0;
    static constexpr bool HAS_LEAST = false;

    static inline void unpack(const Weights * block, int64_t stride, Packed & out) {
        const char * at = (const char *) block;
        const Quads first = transpose(at + offsetof(Weights, qs), stride);
        const Quads second = transpose(at + offsetof(Weights, qs) + 16, stride);
        const __m512i raise = _mm512_set1_epi8((char) 128);
        for (int j = 0; j < 4; j++) {
            out.q[j] = _mm512_xor_si512(first.of[j], raise);
            out.q[4 + j] = _mm512_xor_si512(second.of[j], raise);
        }
        out.d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(transpose(at, stride).of[0]));
    }

    static inline Scales scales(const Activations & block) {
        const __m256i values = _mm256_loadu_si256((const __m256i *) block.qs);
        const __m256i fours = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), values);
        const __m128i two = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
        const __m128i one = _mm_add_epi32(two, _mm_shuffle_epi32(two, 0x4e));
        const int32_t sum = _mm_cvtsi128_si32(one) + _mm_extract_epi32(one, 1);
        return { GGML_CPU_FP16_TO_FP32(block.d), 0.0f, -128 * sum };
    }
};

template <typename Block>
inline __m512i quad_of(const Block & block, int j) {
    int32_t quad;
    memcpy(&quad, block.qs + 4 * j, sizeof(quad));
    return _mm512_set1_epi32(quad);
}

template <typename F, int N>
void columns(const Packed * packed, int64_t blocks, const typename F::Activations * b, int64_t ldb,
             const Scales * scales, int64_t k, float * c, int64_t ldc, bool first) {
    __m512 sum[N];
    for (int n = 0; n < N; n++) {
        sum[n] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(c + n * ldc);
    }
    for (int64_t i = 0; i < blocks; i++) {
        __m512i dots[N];
        for (int n = 0; n < N; n++) {
            dots[n] = _mm512_set1_epi32(scales[n * k + i].from);
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
            if constexpr (F::HAS_LEAST) {
                sum[n] = _mm512_fmadd_ps(packed[i].m, _mm512_set1_ps(by.s), sum[n]);
            }
        }
    }
    for (int n = 0; n < N; n++) {
        _mm512_storeu_ps(c + n * ldc, sum[n]);
    }
}

template <typename F>
void up_to_eight_columns(int64_t count, const Packed * packed, int64_t blocks, const typename F::Activations * b,
                         int64_t ldb, const Scales * scales, int64_t k, float * c, int64_t ldc, bool first) {
    switch (count) {
        case 8: return columns<F, 8>(packed, blocks, b, ldb, scales, k, c, ldc, first);
        case 7: return columns<F, 7>(packed, blocks, b, ldb, scales, k, c, ldc, first);
        case 6: return columns<F, 6>(packed, blocks, b, ldb, scales, k, c, ldc, first);
        case 5: return columns<F, 5>(packed, blocks, b, ldb, scales, k, c, ldc, first);
        case 4: return columns<F, 4>(packed, blocks, b, ldb, scales, k, c, ldc, first);
        case 3: return columns<F, 3>(packed, blocks, b, ldb, scales, k, c, ldc, first);
        case 2: return columns<F, 2>(packed, blocks, b, ldb, scales, k, c, ldc, first);
        default: return columns<F, 1>(packed, blocks, b, ldb, scales, k, c, ldc, first);
    }
}

// One column: nothing is unpacked twice, so nothing is stored. The sums are rounded as in `columns`, so that an answer
// does not depend on what else is in its batch.
template <typename F>
void one_column(const typename F::Weights * a, int64_t stride, int64_t k, const typename F::Activations * b, float * c) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < k; i++) {
        Packed packed;
        F::unpack(a + i, stride, packed);
        const Scales by = F::scales(b[i]);
        // Two chains, as one would wait for itself.
        __m512i even = _mm512_set1_epi32(by.from);
        __m512i odd = _mm512_setzero_si512();
        for (int j = 0; j < 8; j += 2) {
            even = _mm512_dpbusd_epi32(even, packed.q[j], quad_of(b[i], j));
            odd = _mm512_dpbusd_epi32(odd, packed.q[j + 1], quad_of(b[i], j + 1));
        }
        const __m512 d = _mm512_mul_ps(packed.d, _mm512_set1_ps(by.d));
        sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(even, odd)), d, sum);
        if constexpr (F::HAS_LEAST) {
            sum = _mm512_fmadd_ps(packed.m, _mm512_set1_ps(by.s), sum);
        }
    }
    _mm512_storeu_ps(c, sum);
}

template <typename F>
void many_columns(const typename F::Weights * a, int64_t stride, int64_t k, const typename F::Activations * b,
                  int64_t ldb, int64_t n, const Scales * scales, float * c, int64_t ldc) {
    Packed packed[PACKED_MAX];
    for (int64_t from = 0; from < k; from += PACKED_MAX) {
        const int64_t blocks = std::min(PACKED_MAX, k - from);
        for (int64_t i = 0; i < blocks; i++) {
            F::unpack(a + from + i, stride, packed[i]);
        }
        for (int64_t j = 0; j < n; j += COLUMNS) {
            const int64_t count = std::min<int64_t>(COLUMNS, n - j);
            up_to_eight_columns<F>(count, packed, blocks, b + j * ldb + from, ldb, scales + j * k + from, k,
                                   c + j * ldc, ldc, from == 0);
        }
    }
}

template <typename F>
void multiply(const ggml_compute_params * params, int64_t m, int64_t n, int64_t k, const typename F::Weights * a,
              int64_t lda, const typename F::Activations * b, int64_t ldb, float * c, int64_t ldc) {
    static thread_local std::vector<Scales> scales;
    if (n > 1) {
        scales.resize(n * k);
        for (int64_t j = 0; j < n; j++) {
            for (int64_t i = 0; i < k; i++) {
                scales[j * k + i] = F::scales(b[j * ldb + i]);
            }
        }
    }
    const int64_t stride = lda * sizeof(typename F::Weights);
    const int64_t panels = m / LANES;
    const auto panel = [&](int64_t at) {
        const typename F::Weights * rows = a + at * LANES * lda;
        float * out = c + at * LANES;
        if (n == 1) {
            one_column<F>(rows, stride, k, b, out);
        } else {
            many_columns<F>(rows, stride, k, b, ldb, n, scales.data(), out, ldc);
        }
    };
    if (params->nth == 1 || m * n * k * QK8_0 < DYNAMIC_MIN) {
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

#define HONSHU_HAS_PRODUCTS

#endif

extern "C" bool honshu_sgemm(const ggml_compute_params * params, int64_t m, int64_t n, int64_t k, const void * a,
                             int64_t lda, const void * b, int64_t ldb, void * c, int64_t ldc, int a_type, int b_type,
                             int c_type) {
#ifdef HONSHU_HAS_PRODUCTS
    if (c_type == GGML_TYPE_F32 && m % LANES == 0) {
        if (a_type == GGML_TYPE_Q4_1 && b_type == GGML_TYPE_Q8_1) {
            multiply<Q4_1>(params, m, n, k, (const block_q4_1 *) a, lda, (const block_q8_1 *) b, ldb, (float *) c, ldc);
            return true;
        }
        if (a_type == GGML_TYPE_Q8_0 && b_type == GGML_TYPE_Q8_0) {
            multiply<Q8_0>(params, m, n, k, (const block_q8_0 *) a, lda, (const block_q8_0 *) b, ldb, (float *) c, ldc);
            return true;
        }
    }
#endif
    return llamafile_sgemm(params, m, n, k, a, lda, b, ldb, c, ldc, a_type, b_type, c_type);
}
