//! Tells the linker where the portable build's libraries lie: in `lib` beside the executable, or where the build puts them.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    if set("CARGO_FEATURE_PORTABLE")
        && std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux")
    {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/lib:$ORIGIN");
        // The old kind of path also holds for what the libraries themselves need.
        println!("cargo:rustc-link-arg-bins=-Wl,--disable-new-dtags");
    }
}
