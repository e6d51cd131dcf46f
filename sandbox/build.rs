//! Rebuilds the crate when an image's inputs change, because the crate carries them.

fn main() {
    println!("cargo:rerun-if-changed=../docker");
}
