// Puts kernels of Honshu's own in front of two of llama.cpp's, where they are faster; cpu.cmake forces this header
// into the C files of the CPU code and adds the kernels to it. HONSHU_KERNELS=off leaves llama.cpp's own.
//
// ggml-cpu.c is the only caller of the two functions renamed here. What a kernel does not take, it hands on to the
// function whose name it stands for.
#ifndef HONSHU_KERNELS_H
#define HONSHU_KERNELS_H

// attention.cpp
#define ggml_compute_forward_flash_attn_ext honshu_flash_attn_ext
// q4_1.cpp
#define llamafile_sgemm honshu_sgemm

#endif
