// Attention over a cache that many sequences share.
//
// llama.cpp's kernels look at every cell for every row and every head, whoever the cell belongs to, so that a pool of
// cells becomes slower with everything it holds. Here a row's mask is read once for all heads of a key-value head,
// sixty-four cells at a time, and blocks of cells that no row sees cost nothing more. A block that most rows of a tile
// see (a prompt, or answers with the same beginning) is read once and multiplied for all of them as matrices; a block
// that few see (answers with beginnings of their own) is worked through row by row, the heads of a group together.
//
// The softmax is the online one of https://arxiv.org/abs/2112.05682, in single precision throughout. What is not
// taken here (other types than F16, ALiBi, soft capping, a mask for each head) goes to llama.cpp's own kernel.

#include "ggml-cpu.h"
#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "ops.h"
#include "simd-mappings.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__x86_64__) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define HONSHU_HAS_ATTENTION

#include <immintrin.h>

#include "masks.h"

namespace {

// ---- A register of floats ----------------------------------------------------------------------------------------

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
using Vec = __m512;
constexpr int LANES = 16;
// Registers of a tile of the matrix product: cells or queries, times lanes.
constexpr int TILE_ROWS = 4;
constexpr int TILE_VECS = 6;
inline Vec load(const float * p) { return _mm512_loadu_ps(p); }
inline void store(float * p, Vec v) { _mm512_storeu_ps(p, v); }
inline Vec all(float x) { return _mm512_set1_ps(x); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec halves(const ggml_fp16_t * p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p)); }
inline float sum_of(Vec v) { return _mm512_reduce_add_ps(v); }
inline float max_of(Vec v) { return _mm512_reduce_max_ps(v); }
inline Vec zero_where_minus_infinity(Vec v) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, all(-INFINITY), _CMP_NEQ_OQ), v);
}
inline bool all_ones(Vec v) { return _mm512_cmp_ps_mask(v, all(1.0f), _CMP_NEQ_OQ) == 0; }
inline Vec round_of(Vec v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Vec times_power_of_two(Vec v, Vec n) { return _mm512_scalef_ps(v, n); }
constexpr float EXP_LEAST = -200.0f;
#else
using Vec = __m256;
constexpr int LANES = 8;
constexpr int TILE_ROWS = 4;
constexpr int TILE_VECS = 2;
inline Vec load(const float * p) { return _mm256_loadu_ps(p); }
inline void store(float * p, Vec v) { _mm256_storeu_ps(p, v); }
inline Vec all(float x) { return _mm256_set1_ps(x); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec halves(const ggml_fp16_t * p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p)); }
inline float sum_of(Vec v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
inline float max_of(Vec v) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
inline Vec zero_where_minus_infinity(Vec v) { return _mm256_and_ps(v, _mm256_cmp_ps(v, all(-INFINITY), _CMP_NEQ_OQ)); }
inline bool all_ones(Vec v) { return _mm256_movemask_ps(_mm256_cmp_ps(v, all(1.0f), _CMP_NEQ_OQ)) == 0; }
inline Vec round_of(Vec v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Vec times_power_of_two(Vec v, Vec n) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(v, _mm256_castsi256_ps(exponent));
}
// The power of two of this is 2^-127, whose bits above are those of zero.
constexpr float EXP_LEAST = -88.0f;
#endif

// e^x for x <= 0, relative error below 2e-7; zero for everything below about -87.
inline Vec exp_of(Vec x) {
    x = max(x, all(EXP_LEAST));
    const Vec n = round_of(mul(x, all(1.44269504f)));
    Vec r = fma(n, all(-0.693145752f), x);
    r = fma(n, all(-1.42860677e-6f), r);
    Vec p = all(1.98756912e-4f);
    p = fma(p, r, all(1.39819994e-3f));
    p = fma(p, r, all(8.33345205e-3f));
    p = fma(p, r, all(4.16657962e-2f));
    p = fma(p, r, all(1.66666657e-1f));
    p = fma(p, r, all(0.5f));
    p = add(fma(mul(p, r), r, r), all(1.0f));
    return times_power_of_two(p, n);
}

// ---- Matrices ----------------------------------------------------------------------------------------------------

// `rows` times `vecs` registers of c = (c +) a * b. An element of a is a[row * a_row + step * a_step].
template <int ROWS, int VECS>
inline void tile(float * c, int64_t ldc, const float * a, int64_t a_row, int64_t a_step, const float * b, int64_t ldb,
                 int64_t steps, bool onto) {
    Vec sum[ROWS][VECS];
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < VECS; j++) {
            sum[i][j] = onto ? load(c + i * ldc + j * LANES) : all(0.0f);
        }
    }
    for (int64_t k = 0; k < steps; k++) {
        Vec right[VECS];
        for (int j = 0; j < VECS; j++) {
            right[j] = load(b + k * ldb + j * LANES);
        }
        for (int i = 0; i < ROWS; i++) {
            const Vec left = all(a[i * a_row + k * a_step]);
            for (int j = 0; j < VECS; j++) {
                sum[i][j] = fma(left, right[j], sum[i][j]);
            }
        }
    }
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < VECS; j++) {
            store(c + i * ldc + j * LANES, sum[i][j]);
        }
    }
}

template <int VECS>
void strip(float * c, int64_t ldc, const float * a, int64_t a_row, int64_t a_step, const float * b, int64_t ldb,
           int64_t rows, int64_t steps, bool onto) {
    int64_t i = 0;
    for (; i + TILE_ROWS <= rows; i += TILE_ROWS) {
        tile<TILE_ROWS, VECS>(c + i * ldc, ldc, a + i * a_row, a_row, a_step, b, ldb, steps, onto);
    }
    for (; i < rows; i++) {
        tile<1, VECS>(c + i * ldc, ldc, a + i * a_row, a_row, a_step, b, ldb, steps, onto);
    }
}

void multiply(float * c, int64_t ldc, const float * a, int64_t a_row, int64_t a_step, const float * b, int64_t ldb,
              int64_t rows, int64_t steps, int64_t width, bool onto) {
    for (int64_t j = 0; j < width;) {
        const int64_t vecs = std::min<int64_t>((width - j) / LANES, TILE_VECS);
        switch (vecs) {
#if defined(__AVX512F__)
            case 6: strip<6>(c + j, ldc, a, a_row, a_step, b + j, ldb, rows, steps, onto); break;
            case 5: strip<5>(c + j, ldc, a, a_row, a_step, b + j, ldb, rows, steps, onto); break;
            case 4: strip<4>(c + j, ldc, a, a_row, a_step, b + j, ldb, rows, steps, onto); break;
            case 3: strip<3>(c + j, ldc, a, a_row, a_step, b + j, ldb, rows, steps, onto); break;
#endif
            case 2: strip<2>(c + j, ldc, a, a_row, a_step, b + j, ldb, rows, steps, onto); break;
            default: strip<1>(c + j, ldc, a, a_row, a_step, b + j, ldb, rows, steps, onto); break;
        }
        j += vecs * LANES;
    }
}

// ---- The work ----------------------------------------------------------------------------------------------------

// Queries of a tile: enough that reading a block of cells is little beside multiplying with it.
constexpr int64_t QUERIES = 96;
constexpr int64_t ROWS_MIN = 8;
constexpr int64_t ROWS_MAX = 64;
// Heads that are worked through together row by row, and registers of a value that are held meanwhile.
constexpr int HEADS = 4;
constexpr int VALUE_VECS = 4;
// Cells that are fetched from memory before they are needed.
constexpr int AHEAD = 12;
// Shares of the work for each thread, so that one that lost its processor holds up little.
constexpr int64_t SHARES = 4;

// The cells of a block that a row sees.
struct Cells {
    int64_t key, value;
    const ggml_fp16_t * keys[CELLS];
    const ggml_fp16_t * values[CELLS];
    float mask[CELLS];
    int count;
};

// What one thread works with. Buffers keep their size from call to call.
class Worker {
  public:
    // Works on a part of a tile's cells for one key-value head; leaves the result in `dst`, or in `partials`.
    void work(const Shape & s, int64_t number, int64_t kv_head, int64_t segment, float * partials) {
        const Tile & tile = masks_.tile(s, number);
        const int64_t queries = tile.rows * s.group;
        width_ = (queries + LANES - 1) / LANES * LANES;
        most_.assign(width_, -INFINITY);
        total_.assign(width_, 0.0f);
        scaled_.resize(width_);
        out_.assign(width_ * s.value, 0.0f);
        take_queries(s, tile, kv_head);
        const char * keys = s.keys_of(kv_head, tile.stream);
        const char * values = s.values_of(kv_head, tile.stream);
        const int64_t end = tile.first_of(segment + 1, s.segments);
        for (int64_t i = tile.first_of(segment, s.segments); i < end; i++) {
            const Block & block = tile.blocks[i];
            const Seen * seen = tile.seen_of(i);
            const char * block_keys = keys + block.at * CELLS * s.k->nb[1];
            const char * block_values = values + block.at * CELLS * s.v->nb[1];
            if (block.together) {
                together(s, tile, block, seen, block_keys, block_values);
                continue;
            }
            for (int64_t row = 0; row < tile.rows; row++) {
                if (seen[row].any != 0) {
                    apart(s, tile, block, seen[row], block_keys, block_values, row);
                }
            }
        }
        leave(s, tile, kv_head, segment, partials);
    }

  private:
    Masks masks_;
    int64_t width_ = 0;
    // Query number g * rows + r is head g of the group in row r.
    std::vector<float> queries_, columns_, most_, total_, scaled_, out_;
    std::vector<float> keys_, values_, scores_;

    void take_queries(const Shape & s, const Tile & tile, int64_t kv_head) {
        queries_.resize(width_ * s.key);
        columns_.clear();
        for (int64_t g = 0; g < s.group; g++) {
            for (int64_t row = 0; row < tile.rows; row++) {
                const float * from = s.query(tile.row + row, kv_head * s.group + g, tile.stream);
                float * to = queries_.data() + (g * tile.rows + row) * s.key;
                for (int64_t i = 0; i < s.key; i++) {
                    to[i] = from[i] * s.scale;
                }
            }
        }
    }

    // The queries with the lanes of a register across them; made when first needed.
    const float * columns(const Shape & s, const Tile & tile) {
        if (columns_.empty()) {
            columns_.assign(width_ * s.key, 0.0f);
            for (int64_t query = 0; query < tile.rows * s.group; query++) {
                for (int64_t i = 0; i < s.key; i++) {
                    columns_[i * width_ + query] = queries_[query * s.key + i];
                }
            }
        }
        return columns_.data();
    }

    static void widen(float * to, const char * from, int64_t count) {
        for (int64_t i = 0; i < count; i += LANES) {
            store(to + i, halves((const ggml_fp16_t *) from + i));
        }
    }

    // All rows with all cells of a block, as matrices.
    void together(const Shape & s, const Tile & tile, const Block & block, const Seen * seen, const char * keys,
                  const char * values) {
        const int64_t count = count_of(s, block.at);
        keys_.resize(CELLS * s.key);
        values_.resize(CELLS * s.value);
        scores_.resize(CELLS * width_);
        for (int64_t cell = 0; cell < count; cell++) {
            widen(keys_.data() + cell * s.key, keys + cell * s.k->nb[1], s.key);
            widen(values_.data() + cell * s.value, values + cell * s.v->nb[1], s.value);
        }
        multiply(scores_.data(), width_, keys_.data(), s.key, 1, columns(s, tile), width_, count, s.key, width_, false);
        if (!block.plain) {
            hide(s, tile, block, seen, count);
        }
        for (int64_t j = 0; j < width_; j += LANES) {
            Vec most = load(&most_[j]);
            const Vec before = most;
            for (int64_t cell = 0; cell < count; cell++) {
                most = max(most, load(&scores_[cell * width_ + j]));
            }
            store(&most_[j], most);
            // Where nothing was seen yet everything is minus infinity, and so remains without weight.
            const Vec from = zero_where_minus_infinity(most);
            const Vec shrink = exp_of(sub(before, from));
            Vec total = mul(load(&total_[j]), shrink);
            for (int64_t cell = 0; cell < count; cell++) {
                float * score = &scores_[cell * width_ + j];
                const Vec weight = exp_of(sub(load(score), from));
                total = add(total, weight);
                store(score, weight);
            }
            store(&total_[j], total);
            if (!all_ones(shrink)) {
                store(&scaled_[j], shrink);
                for (int64_t query = j; query < j + LANES; query++) {
                    scale_by(out_.data() + query * s.value, scaled_[query], s.value);
                }
            }
        }
        multiply(out_.data(), s.value, scores_.data(), 1, width_, values_.data(), s.value, tile.rows * s.group, count,
                 s.value, true);
    }

    // Adds the mask to the scores.
    void hide(const Shape & s, const Tile & tile, const Block & block, const Seen * seen, int64_t count) {
        for (int64_t row = 0; row < tile.rows; row++) {
            const Seen & cells = seen[row];
            if (cells.plain == UINT64_MAX) {
                continue;
            }
            const ggml_fp16_t * mask = s.mask_of(tile.row + row, tile.stream) + block.at * CELLS;
            for (int64_t cell = 0; cell < count; cell++) {
                if (cells.plain >> cell & 1) {
                    continue;
                }
                const float by = GGML_CPU_FP16_TO_FP32(mask[cell]);
                const bool never = (cells.any >> cell & 1) == 0;
                for (int64_t g = 0; g < s.group; g++) {
                    // Somebody else's score may be anything, and not a number plus minus infinity is not a number.
                    float & score = scores_[cell * width_ + g * tile.rows + row];
                    score = never ? -INFINITY : score + by;
                }
            }
        }
    }

    static void scale_by(float * at, float by, int64_t count) {
        if (by == 1.0f) {
            return;
        }
        for (int64_t i = 0; i < count; i += LANES) {
            store(at + i, mul(load(at + i), all(by)));
        }
    }

    // One row with the cells of a block that it sees.
    void apart(const Shape & s, const Tile & tile, const Block & block, const Seen & cells, const char * keys,
               const char * values, int64_t row) {
        Cells of = { s.key, s.value, {}, {}, {}, 0 };
        const ggml_fp16_t * mask = s.mask_of(tile.row + row, tile.stream) + block.at * CELLS;
        for (uint64_t rest = cells.any; rest != 0; rest &= rest - 1) {
            const int at = __builtin_ctzll(rest);
            of.mask[of.count] = cells.plain >> at & 1 ? 0.0f : GGML_CPU_FP16_TO_FP32(mask[at]);
            of.keys[of.count] = (const ggml_fp16_t *) (keys + at * s.k->nb[1]);
            of.values[of.count] = (const ggml_fp16_t *) (values + at * s.v->nb[1]);
            of.count++;
        }
        for (int64_t g = 0; g < s.group; g += HEADS) {
            const int64_t query = g * tile.rows + row;
            switch (std::min<int64_t>(HEADS, s.group - g)) {
                case 4: heads<4>(of, query, tile.rows); break;
                case 3: heads<3>(of, query, tile.rows); break;
                case 2: heads<2>(of, query, tile.rows); break;
                default: heads<1>(of, query, tile.rows); break;
            }
        }
    }

    static void fetch(const ggml_fp16_t * from, int64_t count) {
        constexpr int64_t LINE = 64 / sizeof(ggml_fp16_t);
        for (int64_t at = 0; at < count; at += LINE) {
            _mm_prefetch((const char *) (from + at), _MM_HINT_T0);
        }
    }

    // The heads of a group in one row, `rows` queries from each other.
    template <int N>
    void heads(const Cells & of, int64_t query, int64_t rows) {
        alignas(64) float weights[N][CELLS];
        const float * from[N];
        for (int g = 0; g < N; g++) {
            from[g] = &queries_[(query + g * rows) * of.key];
        }
        for (int i = 0; i < of.count; i++) {
            // The heads of other groups lie between these, so the processor does not see what comes next.
            fetch(of.keys[std::min(i + AHEAD, of.count - 1)], of.key);
            fetch(of.values[i], of.value);
            Vec dots[N];
            for (int g = 0; g < N; g++) {
                dots[g] = all(0.0f);
            }
            for (int64_t at = 0; at < of.key; at += LANES) {
                const Vec part = halves(of.keys[i] + at);
                for (int g = 0; g < N; g++) {
                    dots[g] = fma(part, load(from[g] + at), dots[g]);
                }
            }
            for (int g = 0; g < N; g++) {
                weights[g][i] = sum_of(dots[g]) + of.mask[i];
            }
        }
        const int padded = (of.count + LANES - 1) / LANES * LANES;
        float shrink[N];
        for (int g = 0; g < N; g++) {
            std::fill(weights[g] + of.count, weights[g] + padded, -INFINITY);
            Vec most = all(-INFINITY);
            for (int i = 0; i < padded; i += LANES) {
                most = max(most, load(weights[g] + i));
            }
            float & held = most_[query + g * rows];
            const float now = std::max(held, max_of(most));
            const float base = now == -INFINITY ? 0.0f : now;
            shrink[g] = std::exp(held - base);
            held = now;
            Vec total = all(0.0f);
            for (int i = 0; i < padded; i += LANES) {
                const Vec weight = exp_of(sub(load(weights[g] + i), all(base)));
                total = add(total, weight);
                store(weights[g] + i, weight);
            }
            float & sum = total_[query + g * rows];
            sum = sum * shrink[g] + sum_of(total);
        }
        for (int64_t at = 0; at < of.value;) {
            if ((of.value - at) / LANES >= VALUE_VECS) {
                add_values<N, VALUE_VECS>(of, query, rows, weights, shrink, at);
                at += VALUE_VECS * LANES;
            } else {
                add_values<N, 1>(of, query, rows, weights, shrink, at);
                at += LANES;
            }
        }
    }

    template <int N, int VECS>
    void add_values(const Cells & of, int64_t query, int64_t rows, const float (*weights)[CELLS], const float * shrink,
                    int64_t at) {
        Vec sum[N][VECS];
        float * out[N];
        for (int g = 0; g < N; g++) {
            out[g] = &out_[(query + g * rows) * of.value + at];
            for (int j = 0; j < VECS; j++) {
                sum[g][j] = mul(load(out[g] + j * LANES), all(shrink[g]));
            }
        }
        for (int i = 0; i < of.count; i++) {
            Vec part[VECS];
            for (int j = 0; j < VECS; j++) {
                part[j] = halves(of.values[i] + at + j * LANES);
            }
            for (int g = 0; g < N; g++) {
                const Vec weight = all(weights[g][i]);
                for (int j = 0; j < VECS; j++) {
                    sum[g][j] = fma(part[j], weight, sum[g][j]);
                }
            }
        }
        for (int g = 0; g < N; g++) {
            for (int j = 0; j < VECS; j++) {
                store(out[g] + j * LANES, sum[g][j]);
            }
        }
    }

    void leave(const Shape & s, const Tile & tile, int64_t kv_head, int64_t segment, float * partials) {
        for (int64_t g = 0; g < s.group; g++) {
            const int64_t head = kv_head * s.group + g;
            for (int64_t row = 0; row < tile.rows; row++) {
                const int64_t query = g * tile.rows + row;
                const float * out = out_.data() + query * s.value;
                if (partials == nullptr) {
                    finish(s, tile.row + row, head, tile.stream, most_[query], total_[query], out);
                    continue;
                }
                const int64_t place = ((tile.stream * s.rows + tile.row + row) * s.heads + head) * s.segments + segment;
                float * partial = partials + place * (s.value + 2);
                partial[0] = most_[query];
                partial[1] = total_[query];
                memcpy(partial + 2, out, s.value * sizeof(float));
            }
        }
    }

  public:
    static void finish(const Shape & s, int64_t row, int64_t head, int64_t stream, float most, float total,
                       const float * out) {
        float by = 1.0f;
        if (s.sinks != nullptr) {
            // A sink is a score that takes weight and has no value.
            const float now = std::max(most, s.sinks[head]);
            by = std::exp(most - now);
            total = total * by + std::exp(s.sinks[head] - now);
        }
        by = total == 0.0f ? 0.0f : by / total;
        float * to = s.result(row, head, stream);
        for (int64_t i = 0; i < s.value; i += LANES) {
            store(to + i, mul(load(out + i), all(by)));
        }
    }
};

// Joins the segments of a row and head.
void join(const Shape & s, const float * partials, int64_t index, std::vector<float> & out) {
    const int64_t head = index % s.heads;
    const int64_t row = index / s.heads % s.rows;
    const int64_t stream = index / s.heads / s.rows;
    const float * parts = partials + index * s.segments * (s.value + 2);
    float most = -INFINITY;
    for (int64_t i = 0; i < s.segments; i++) {
        most = std::max(most, parts[i * (s.value + 2)]);
    }
    out.assign(s.value, 0.0f);
    float total = 0.0f;
    for (int64_t i = 0; i < s.segments; i++) {
        const float * part = parts + i * (s.value + 2);
        if (part[0] == -INFINITY) {
            continue;
        }
        const float by = std::exp(part[0] - most);
        total += part[1] * by;
        for (int64_t j = 0; j < s.value; j += LANES) {
            store(&out[j], fma(load(part + 2 + j), all(by), load(&out[j])));
        }
    }
    Worker::finish(s, row, head, stream, most, total, out.data());
}

bool takes(const ggml_compute_params * params, const ggml_tensor * dst) {
    const ggml_tensor * q = dst->src[0];
    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];
    const ggml_tensor * mask = dst->src[3];
    float max_bias, softcap;
    memcpy(&max_bias, (const float *) dst->op_params + 1, sizeof(float));
    memcpy(&softcap, (const float *) dst->op_params + 2, sizeof(float));
    return !params->use_ref && mask != nullptr && mask->type == GGML_TYPE_F16 && q->type == GGML_TYPE_F32 &&
           k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 && max_bias == 0.0f && softcap == 0.0f &&
           mask->ne[2] == 1 && mask->ne[0] >= k->ne[1] && k->ne[0] % LANES == 0 && v->ne[0] % LANES == 0 &&
           k->ne[2] == v->ne[2] && k->ne[3] == v->ne[3] && q->ne[2] % k->ne[2] == 0 && q->ne[3] % k->ne[3] == 0 &&
           q->ne[2] / k->ne[2] <= QUERIES / ROWS_MIN * 2 && q->nb[0] == sizeof(float) &&
           k->nb[0] == sizeof(ggml_fp16_t) && v->nb[0] == sizeof(ggml_fp16_t) && dst->nb[0] == sizeof(float);
}

void attend(const ggml_compute_params * params, ggml_tensor * dst) {
    Shape s = {};
    s.q = dst->src[0];
    s.k = dst->src[1];
    s.v = dst->src[2];
    s.mask = dst->src[3];
    s.sinks = dst->src[4] != nullptr ? (const float *) dst->src[4]->data : nullptr;
    s.dst = dst;
    memcpy(&s.scale, dst->op_params, sizeof(float));
    s.key = s.k->ne[0];
    s.value = s.v->ne[0];
    s.cells = s.k->ne[1];
    s.rows = s.q->ne[1];
    s.heads = s.q->ne[2];
    s.kv_heads = s.k->ne[2];
    s.group = s.heads / s.kv_heads;
    s.streams = s.q->ne[3];
    s.tile_rows = std::clamp(QUERIES / s.group, ROWS_MIN, ROWS_MAX);
    s.tiles = (s.rows + s.tile_rows - 1) / s.tile_rows;

    // Few tiles are cut into parts of their cells, as far as the room for their results goes.
    const int64_t wholes = s.streams * s.tiles * s.kv_heads;
    const int64_t results = s.streams * s.rows * s.heads * (s.value + 2) * int64_t(sizeof(float));
    const int64_t room = int64_t(params->wsize) / results;
    const int64_t wanted = params->nth == 1 ? 1 : (SHARES * params->nth + wholes - 1) / wholes;
    s.segments = std::max<int64_t>(1, std::min({ wanted, room, (s.cells + CELLS - 1) / CELLS }));
    float * partials = s.segments > 1 ? (float *) params->wdata : nullptr;

    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    static thread_local Worker worker;
    const int64_t items = wholes * s.segments;
    for (int64_t item = params->ith; item < items; item = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t of_tile = item % (s.kv_heads * s.segments);
        worker.work(s, item / (s.kv_heads * s.segments), of_tile / s.segments, of_tile % s.segments, partials);
    }
    if (partials == nullptr) {
        return;
    }
    ggml_barrier(params->threadpool);
    static thread_local std::vector<float> out;
    const int64_t all_rows = s.streams * s.rows * s.heads;
    const int64_t end = all_rows * (params->ith + 1) / params->nth;
    for (int64_t index = all_rows * params->ith / params->nth; index < end; index++) {
        join(s, partials, index, out);
    }
}

}  // namespace

#endif

// The functions by which a graph begins; ggml-cpu.c has these under names of ours.
extern "C" ggml_status honshu_graph_compute(ggml_cgraph * graph, ggml_cplan * plan);
extern "C" ggml_status honshu_graph_compute_with_ctx(ggml_context * context, ggml_cgraph * graph, int threads);

extern "C" ggml_status ggml_graph_compute(ggml_cgraph * graph, ggml_cplan * plan) {
#ifdef HONSHU_HAS_ATTENTION
    graphs.fetch_add(1);
#endif
    return honshu_graph_compute(graph, plan);
}

extern "C" ggml_status ggml_graph_compute_with_ctx(ggml_context * context, ggml_cgraph * graph, int threads) {
#ifdef HONSHU_HAS_ATTENTION
    graphs.fetch_add(1);
#endif
    return honshu_graph_compute_with_ctx(context, graph, threads);
}

extern "C" void honshu_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst) {
#ifdef HONSHU_HAS_ATTENTION
    if (takes(params, dst)) {
        attend(params, dst);
        return;
    }
#endif
    ggml_compute_forward_flash_attn_ext(params, dst);
}
