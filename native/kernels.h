// Puts kernels of Honshu's own in front of two of llama.cpp's, where they are faster; cpu.cmake forces this header
// into the C files of the CPU code and adds the kernels to it. HONSHU_KERNELS=off leaves llama.cpp's own.
//
// ggml-cpu.c is the only caller of the kernels renamed here. What a kernel does not take, it hands on to the function
// whose name it stands for.
#ifndef HONSHU_KERNELS_H
#define HONSHU_KERNELS_H

// attention.cpp
#define ggml_compute_forward_flash_attn_ext honshu_flash_attn_ext
// quantized.cpp
#define llamafile_sgemm honshu_sgemm

// ggml-cpu.c defines these two; attention.cpp puts its own in front of them, so that it knows when a graph begins.
#define ggml_graph_compute honshu_graph_compute
#define ggml_graph_compute_with_ctx honshu_graph_compute_with_ctx

#endif
