# Included by CMake at the end of llama.cpp's first project() call, because .cargo/config.toml puts this
# file's path into CMAKE_PROJECT_INCLUDE and the build script of llama-cpp-sys-2 hands CMAKE_* variables on.
#
# It decides for which processor the tensor code is compiled. The binding itself assumes AVX2 and nothing
# newer; on a processor with AVX-512 or AMX that costs a factor of two to four.
#
#   HONSHU_CPU=native    (default) this machine's instructions: right where the builder also serves
#   HONSHU_CPU=portable  the binding's own choice (x86-64 with AVX2), for moving one static binary around
#
# The cargo feature `portable` of honshu-engine (every variant built, the best one loaded at run time) excludes
# -march=native, and so does cross-compilation; both are left alone. After changing HONSHU_CPU run
# `cargo clean -p llama-cpp-sys-2`, as cargo cannot know that the answer would differ.

include_guard(GLOBAL)

set(honshu_cpu "$ENV{HONSHU_CPU}")
if (honshu_cpu STREQUAL "")
    set(honshu_cpu "native")
endif()
if (NOT honshu_cpu MATCHES "^(native|portable)$")
    message(FATAL_ERROR "HONSHU_CPU is `${honshu_cpu}`; use native or portable")
endif()

if (honshu_cpu STREQUAL "native" AND NOT CMAKE_CROSSCOMPILING AND NOT GGML_BACKEND_DL AND NOT MSVC)
    # FORCE, because the binding's build script has already put GGML_NATIVE=OFF into the cache.
    set(GGML_NATIVE ON CACHE BOOL "tensor code for the building machine (honshu native/cpu.cmake)" FORCE)
    if (CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
        # A pinned baseline would win over GGML_NATIVE.
        set(GGML_CPU_ARM_ARCH "" CACHE STRING "unset: native (honshu native/cpu.cmake)" FORCE)
    endif()
    message(STATUS "honshu: compiling the tensor code for this machine")
else()
    message(STATUS "honshu: compiling portable tensor code")
endif()

# See the header for the reason. Only C++ files of ggml use the tile intrinsics.
if (CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13
        AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    string(APPEND CMAKE_CXX_FLAGS " -include \"${CMAKE_CURRENT_LIST_DIR}/amx_tile_config.h\"")
    message(STATUS "honshu: repairing _tile_loadconfig of gcc ${CMAKE_CXX_COMPILER_VERSION}")
endif()

# See the header for the reason. HONSHU_WAIT=spin leaves llama.cpp's own way.
if (NOT "$ENV{HONSHU_WAIT}" STREQUAL "spin" AND NOT MSVC
        AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    string(APPEND CMAKE_C_FLAGS " -include \"${CMAKE_CURRENT_LIST_DIR}/polite_wait.h\"")
    message(STATUS "honshu: threads wait politely")
endif()

# See kernels.h for what this is about. HONSHU_KERNELS=off leaves llama.cpp's own kernels.
function(honshu_add_kernels directory)
    get_property(targets DIRECTORY "${directory}" PROPERTY BUILDSYSTEM_TARGETS)
    foreach (target IN LISTS targets)
        # The CPU code, or one library for each variant of processors; not the objects that choose between those.
        if (target MATCHES "^ggml-cpu(-.*)?$" AND NOT target MATCHES "-feats$")
            target_sources(${target} PRIVATE "${honshu_native}/attention.cpp" "${honshu_native}/quantized.cpp")
        endif()
    endforeach()
    get_property(directories DIRECTORY "${directory}" PROPERTY SUBDIRECTORIES)
    foreach (below IN LISTS directories)
        honshu_add_kernels("${below}")
    endforeach()
endfunction()

if (NOT "$ENV{HONSHU_KERNELS}" STREQUAL "off" AND NOT MSVC
        AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(honshu_native "${CMAKE_CURRENT_LIST_DIR}")
    string(APPEND CMAKE_C_FLAGS " -include \"${honshu_native}/kernels.h\"")
    # The targets do not exist yet.
    cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL honshu_add_kernels "${CMAKE_SOURCE_DIR}")
    message(STATUS "honshu: adding kernels for attention and quantized products")
endif()
