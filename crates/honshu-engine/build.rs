//! Passes on where the portable build of llama.cpp left its processor variants.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(dir) = std::env::var("DEP_LLAMA_BACKENDS_DIR") {
        println!("cargo:rustc-env=HONSHU_BACKENDS_DIR_BUILT={dir}");
    }
}
