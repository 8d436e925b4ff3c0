// Repairs _tile_loadconfig for gcc before 13.
//
// `ldtilecfg` reads 64 bytes of tile configuration. The intrinsic of those compilers tells the optimiser that
// it reads one pointer's width only, so at -O2 and above the stores that fill the rest of the structure are
// dead code and vanish; the processor then loads rubbish and faults in the first matrix product. The
// replacement below names the whole structure as the operand. It is forced into every C++ file by cpu.cmake
// and changes nothing where AMX is not compiled in.
#ifndef HONSHU_AMX_TILE_CONFIG_H
#define HONSHU_AMX_TILE_CONFIG_H

#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ < 13

#include <immintrin.h>

struct honshu_tile_config_bytes {
    unsigned char byte[64];
};

__attribute__((always_inline)) static inline void honshu_load_tile_config(const void * config) {
    const struct honshu_tile_config_bytes * whole = (const struct honshu_tile_config_bytes *) config;
    __asm__ volatile("ldtilecfg %0" : : "m"(*whole) : "memory");
}

#undef _tile_loadconfig
#define _tile_loadconfig(config) honshu_load_tile_config(config)

#endif
#endif

#endif
