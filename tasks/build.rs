//! Rebuilds the crate when a task of the built-in suites changes, because the program carries them.

fn main() {
    println!("cargo:rerun-if-changed=suite");
}
