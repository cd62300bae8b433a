//! Compiles the eBPF program with clang. It needs no running kernel: the few kernel structs that
//! the program uses are declared in it and relocated when it is loaded.

use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/bpf/capture.bpf.c";

fn main() {
    println!("cargo:rerun-if-changed=src/bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // libbpf's own headers, as libbpf-sys unpacked them: the program and the loader then can't
    // differ.
    let libbpf = std::env::var("DEP_BPF_INCLUDE").expect("libbpf-sys says where its headers are");
    let triplet = format!(
        "/usr/include/{}-linux-gnu",
        std::env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target")
    );
    let arch = match std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64") => "-D__TARGET_ARCH_x86",
        Ok(_) => "-D__TARGET_ARCH_arm64",
        Err(error) => panic!("cargo sets the target: {error}"),
    };
    let status = Command::new(&clang)
        .args(["-g", "-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", arch])
        .args(["-I", &libbpf, "-I", &triplet, "-c", SOURCE, "-o"])
        .arg(out.join("capture.bpf.o"))
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{clang} ended with {status} on {SOURCE}"),
        Err(error) => panic!(
            "{clang} can't be run ({error}): install the packages clang, libelf-dev, zlib1g-dev and pkg-config"
        ),
    }
}
