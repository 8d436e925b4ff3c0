// Which cells of a shared cache the rows of a batch see, read from the mask once for each step.
//
// A mask has an element for every row and every cell of the cache, whoever the cell belongs to, and all layers of a
// step use the same one. With a cache of 16,384 cells and a batch of 512 tokens that is 16 MiB, which thirty layers
// need not read thirty times.
#ifndef HONSHU_MASKS_H
#define HONSHU_MASKS_H

#include "ggml-cpu-impl.h"
#include "ggml.h"

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

// Cells of a block.
constexpr int64_t CELLS = 64;
// Below so many queries the registers of a product across queries are too empty.
constexpr int64_t TOGETHER_MIN = 24;

struct Shape {
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * mask;
    const float * sinks;
    ggml_tensor * dst;
    float scale;
    int64_t key, value;       // elements of a key and of a value
    int64_t cells;            // of the cache
    int64_t rows;             // of queries, in a stream
    int64_t heads, kv_heads;
    int64_t group;            // heads of a key-value head
    int64_t tile_rows;
    int64_t tiles;            // in a stream
    int64_t streams;
    int64_t segments;         // parts of a tile's cells that are worked on apart

    // The first cell of a head; the next one is nb[1] bytes away.
    const char * keys_of(int64_t kv_head, int64_t stream) const {
        return (const char *) k->data + kv_head * k->nb[2] + (stream * k->ne[3] / q->ne[3]) * k->nb[3];
    }
    const char * values_of(int64_t kv_head, int64_t stream) const {
        return (const char *) v->data + kv_head * v->nb[2] + (stream * v->ne[3] / q->ne[3]) * v->nb[3];
    }
    const float * query(int64_t row, int64_t head, int64_t stream) const {
        return (const float *) ((const char *) q->data + row * q->nb[1] + head * q->nb[2] + stream * q->nb[3]);
    }
    const ggml_fp16_t * mask_of(int64_t row, int64_t stream) const {
        return (const ggml_fp16_t *) ((const char *) mask->data + row * mask->nb[1] +
                                      (stream % mask->ne[3]) * mask->nb[3]);
    }
    float * result(int64_t row, int64_t head, int64_t stream) const {
        return (float *) ((char *) dst->data + ((stream * rows + row) * heads + head) * dst->nb[1]);
    }
};

// Which of up to sixty-four cells a row sees, and of which of them the mask is nothing but "seen".
struct Seen {
    uint64_t any;
    uint64_t plain;
};

inline Seen seen(const ggml_fp16_t * mask, int64_t count) {
    constexpr uint16_t MINUS_INFINITY = 0xfc00;
#if defined(__AVX512BW__)
    if (count == CELLS) {
        const __m512i never = _mm512_set1_epi16((short) MINUS_INFINITY);
        const __m512i low = _mm512_loadu_si512(mask);
        const __m512i high = _mm512_loadu_si512(mask + 32);
        return {
            _mm512_cmpneq_epi16_mask(low, never) | (uint64_t) _mm512_cmpneq_epi16_mask(high, never) << 32,
            _mm512_testn_epi16_mask(low, low) | (uint64_t) _mm512_testn_epi16_mask(high, high) << 32,
        };
    }
#else
    if (count == CELLS) {
        Seen found = { 0, 0 };
        const __m256i never = _mm256_set1_epi16((short) MINUS_INFINITY);
        for (int at = 0; at < CELLS; at += 32) {
            const __m256i low = _mm256_loadu_si256((const __m256i *) (mask + at));
            const __m256i high = _mm256_loadu_si256((const __m256i *) (mask + at + 16));
            const auto bits = [](__m256i a, __m256i b) {
                // Packing works within halves of a register, so the quarters are put back into order.
                const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8);
                return (uint64_t) (uint32_t) _mm256_movemask_epi8(packed);
            };
            const __m256i zero = _mm256_setzero_si256();
            found.any |= (uint32_t) ~bits(_mm256_cmpeq_epi16(low, never), _mm256_cmpeq_epi16(high, never)) * uint64_t(1)
                         << at;
            found.plain |= bits(_mm256_cmpeq_epi16(low, zero), _mm256_cmpeq_epi16(high, zero)) << at;
        }
        return found;
    }
#endif
    Seen found = { 0, 0 };
    for (int64_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, mask + i, sizeof(half));
        found.any |= uint64_t(half != MINUS_INFINITY) << i;
        found.plain |= uint64_t(half == 0) << i;
    }
    return found;
}

// Sixty-four cells of which at least one row of a tile sees something.
struct Block {
    int64_t at;     // number of the block in the cache
    int64_t cost;   // of everything before it
    bool plain;     // every row sees every cell
    bool together;  // worth working on with all rows at once
};

inline int64_t blocks_of(const Shape & s) { return (s.cells + CELLS - 1) / CELLS; }

inline int64_t count_of(const Shape & s, int64_t block) { return std::min(CELLS, s.cells - block * CELLS); }

// Rows that are worked on together, and the blocks that they see.
struct Tile {
    int64_t stream = 0;
    int64_t row = 0;
    int64_t rows = 0;
    int64_t cost = 0;
    std::vector<Block> blocks;
    // For each block what each row sees of it.
    std::vector<Seen> seen;

    const Seen * seen_of(int64_t block) const { return seen.data() + block * rows; }

    // The first block of a segment: blocks are dealt out by what they cost.
    int64_t first_of(int64_t segment, int64_t segments) const {
        const int64_t bound = cost * segment / segments;
        const auto before = [bound](const Block & block) { return block.cost < bound; };
        return std::partition_point(blocks.begin(), blocks.end(), before) - blocks.begin();
    }

    // Reads the masks of a tile's rows; `all` is scratch.
    void read(const Shape & s, int64_t number, std::vector<Seen> & all) {
        stream = number / s.tiles;
        row = number % s.tiles * s.tile_rows;
        rows = std::min(s.tile_rows, s.rows - row);
        const int64_t count = blocks_of(s);
        all.resize(rows * count);
        for (int64_t i = 0; i < rows; i++) {
            const ggml_fp16_t * mask = s.mask_of(row + i, stream);
            for (int64_t at = 0; at < count; at++) {
                all[i * count + at] = ::seen(mask + at * CELLS, count_of(s, at));
            }
        }
        blocks.clear();
        seen.clear();
        cost = 0;
        for (int64_t at = 0; at < count; at++) {
            int64_t seeing = 0;
            bool plain = true;
            for (int64_t i = 0; i < rows; i++) {
                const Seen & cells = all[i * count + at];
                seeing += cells.any != 0;
                plain = plain && cells.plain == UINT64_MAX;
            }
            if (seeing == 0) {
                continue;
            }
            for (int64_t i = 0; i < rows; i++) {
                seen.push_back(all[i * count + at]);
            }
            const bool together = seeing * 2 > rows && seeing * s.group >= TOGETHER_MIN;
            blocks.push_back({ at, cost, plain, together });
            // Together costs about as much as half of the rows apart.
            cost += together ? (rows + 1) / 2 : seeing;
        }
    }
};

// Counts the graphs that were begun, of any model, so that no mask of an earlier one is taken for today's.
inline std::atomic<uint64_t> graphs{ 0 };

// What one thread has read of the masks of the step that it works on. A model with a sliding window has two masks.
class Masks {
  public:
    const Tile & tile(const Shape & s, int64_t number) {
        Table & table = table_of(s);
        Entry & entry = table.tiles[number];
        if (!entry.known) {
            entry.tile.read(s, number, all_);
            entry.known = true;
        }
        return entry.tile;
    }

  private:
    struct Entry {
        bool known = false;
        Tile tile;
    };
    struct Table {
        uint64_t graph = 0;
        const ggml_tensor * mask = nullptr;
        const void * data = nullptr;
        int64_t cells = 0, rows = 0, group = 0, streams = 0;
        std::vector<Entry> tiles;

        bool is_of(const Shape & s, uint64_t now) const {
            return graph == now && mask == s.mask && data == s.mask->data && cells == s.cells && rows == s.rows &&
                   group == s.group && streams == s.streams;
        }
    };

    std::array<Table, 2> tables_;
    size_t next_ = 0;
    std::vector<Seen> all_;

    Table & table_of(const Shape & s) {
        const uint64_t now = graphs.load(std::memory_order_relaxed);
        for (Table & table : tables_) {
            if (table.is_of(s, now)) {
                return table;
            }
        }
        Table & table = tables_[next_];
        next_ = (next_ + 1) % tables_.size();
        table.graph = now;
        table.mask = s.mask;
        table.data = s.mask->data;
        table.cells = s.cells;
        table.rows = s.rows;
        table.group = s.group;
        table.streams = s.streams;
        const size_t tiles = s.streams * s.tiles;
        table.tiles.resize(std::max(table.tiles.size(), tiles));
        for (Entry & entry : table.tiles) {
            entry.known = false;
        }
        return table;
    }
};

}  // namespace

#endif
