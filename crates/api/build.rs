//! Generates the server traits and the clients of the Temporal API.
//!
//! The messages come from `temporalio-protos`, which also hands us its compiled descriptor: no
//! .proto file is copied and no protoc is needed.

use std::{env, fs, path::PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;

/// The packages whose services are generated. Everything else in the descriptor is messages.
const PACKAGES: &[&str] = &[
    "temporal.api.workflowservice.v1",
    "temporal.api.operatorservice.v1",
    "temporal.api.testservice.v1",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let descriptor_path = PathBuf::from(env::var("DEP_TEMPORALIO_PROTOS_DESCRIPTOR_PATH")?);
    println!("cargo:rerun-if-changed={}", descriptor_path.display());
    let bytes = fs::read(&descriptor_path)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut services = FileDescriptorSet::decode(bytes.as_slice())?;
    for file in &mut services.file {
        if !PACKAGES.contains(&file.package()) {
            file.service.clear();
        }
    }
    tonic_prost_build::configure()
        .build_server(true)
        .build_client(true)
        .generate_default_stubs(true)
        .extern_path(".temporal", "::temporalio_protos::temporal")
        .compile_fds(services)?;

    fs::write(out.join("descriptors.bin"), bytes)?;
    Ok(())
}
