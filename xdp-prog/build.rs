//! Compiles the BPF programs with clang and generates the Rust that loads them. Runs on the building machine,
//! never on the one that captures; without a clang that can do it, says what to install.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use libbpf_cargo::SkeletonBuilder;

const HEADERS: [&str; 3] = ["src/abi.h", "src/maps.h", "src/related.h"];
const INSTALL: &str = "install it: apt-get install clang (or point CLANG at one)";

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR for build scripts")?);
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    println!("cargo:rerun-if-env-changed=CLANG");
    HEADERS.iter().for_each(|header| println!("cargo:rerun-if-changed={header}"));
    match Command::new(&clang).arg("--version").output() {
        Ok(version) if version.status.success() => {}
        Ok(version) => bail!("{}: clang fails: {}\n{INSTALL}", clang.display(), version.status),
        Err(error) => {
            bail!("the XDP program is compiled by clang, and {}: {error}\n{INSTALL}", clang.display())
        }
    }
    for name in ["capture", "flood", "nic_clock"] {
        let source = Path::new("src").join(format!("{name}.bpf.c"));
        println!("cargo:rerun-if-changed={}", source.display());
        SkeletonBuilder::new()
            .source(&source)
            .obj(out.join(format!("{name}.bpf.o")))
            .clang(&clang)
            .clang_args(["-Wall", "-Wextra", "-Werror", &format!("-I{}", system_headers())])
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .with_context(|| format!("{} can't be compiled for BPF", source.display()))?;
    }
    Ok(())
}

/// Where Debian keeps `asm/types.h`, which clang doesn't look for when it compiles for another machine.
fn system_headers() -> String {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    format!("/usr/include/{arch}-linux-gnu")
}
