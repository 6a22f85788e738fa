//! Compiles the kernel programs with clang. Without clang or the headers of libbpf the crate is
//! built without them, and says so at run time.

use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 2] = ["forward", "testing"];

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let missing = PROGRAMS.iter().find_map(|name| compile(name, &out).err());
    if let Some(missing) = &missing {
        for name in PROGRAMS {
            std::fs::write(object(&out, name), []).expect("OUT_DIR can be written");
        }
        println!("cargo:warning=edge-xdp is built without its kernel program: {missing}");
        // A package that is installed later changes these.
        println!("cargo:rerun-if-changed=/usr/bin/clang");
        println!("cargo:rerun-if-changed=/usr/include/bpf");
    }
    println!("cargo:rustc-env=EDGE_XDP_MISSING={}", missing.unwrap_or_default());
}

fn object(out: &Path, name: &str) -> PathBuf {
    out.join(format!("{name}.o"))
}

/// What is missing, in words. A fault in the program itself ends the build.
fn compile(name: &str, out: &Path) -> Result<(), String> {
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let output = Command::new("clang")
        .args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3"])
        // Debian keeps asm/types.h there.
        .arg(format!("-I/usr/include/{arch}-linux-gnu"))
        .arg("-c")
        .arg(format!("bpf/{name}.bpf.c"))
        .arg("-o")
        .arg(object(out, name))
        .output()
        .map_err(|_| "clang is not installed".to_owned())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("file not found") {
        return Err("headers are not installed (libbpf-dev, linux-libc-dev)".to_owned());
    }
    panic!("clang does not compile {name}.bpf.c:\n{text}");
}
