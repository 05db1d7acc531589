//! Embeds the kernel-side object, which `cargo xtask build` makes, into the daemon.
use std::{env, fs, path::PathBuf, process::exit};

fn main() {
    println!("cargo::rerun-if-env-changed=VOUCHSAFE_BPF_OBJECT");
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        println!("cargo::error=cargo sets OUT_DIR for build scripts; it is missing");
        exit(1)
    };
    let object = env::var_os("VOUCHSAFE_BPF_OBJECT").map_or_else(
        || {
            // OUT_DIR is <target>/<profile>/build/<package>-<hash>/out.
            out.ancestors().nth(4).unwrap_or(&out).join("bpf/vouchsafe.bpf.o")
        },
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    if let Err(error) = fs::copy(&object, out.join("vouchsafe.bpf.o")) {
        println!(
            "cargo::error=the kernel-side object {} cannot be read ({error}); run `cargo xtask build`, which makes it",
            object.display()
        );
        exit(1);
    }
}
