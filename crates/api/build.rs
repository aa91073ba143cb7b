//! Generates the server traits and the clients of the Temporal API.
//!
//! The messages come from `temporalio-protos`, which also hands us its compiled descriptor: no
//! .proto file is copied and no protoc is needed.

use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};

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
        .compile_fds(services.clone())?;
    for package in PACKAGES {
        name_unwritten_methods(&out.join(format!("{package}.rs")), package, &services)?;
    }

    fs::write(out.join("message_fields.txt"), message_fields(&bytes)?)?;
    fs::write(out.join("descriptors.bin"), bytes)?;
    Ok(())
}

/// Makes the default stubs say which method is not there: all that `tonic` lets them say is that
/// something is not.
///
/// Stubs come in the order of their methods, and nothing but stubs says this.
fn name_unwritten_methods(
    path: &Path,
    package: &str,
    services: &FileDescriptorSet,
) -> Result<(), Box<dyn std::error::Error>> {
    const SAID: &str = "\"Not yet implemented\"";
    let code = fs::read_to_string(path)?;
    let mut rest = code.as_str();
    let mut named = String::new();
    let methods = services
        .file
        .iter()
        .filter(|file| file.package() == package)
        .flat_map(|file| &file.service)
        .flat_map(|service| &service.method);
    for method in methods {
        let name = method.name();
        let Some((before, after)) = rest.split_once(SAID) else {
            return Err(format!("{package}: no default stub is left for {name}").into());
        };
        // The last function before the stub's body is the stub.
        let stub = before.rsplit("async fn ").next().unwrap_or_default();
        let function = stub.split('(').next().unwrap_or_default();
        if function.replace('_', "") != name.to_lowercase() {
            return Err(format!("{package}: the stub of {name} is called {function}").into());
        }
        named.push_str(before);
        named.push_str(&format!("\"Steadfast does not implement {name} yet\""));
        rest = after;
    }
    if rest.contains(SAID) {
        return Err(format!("{package}: there are more default stubs than methods").into());
    }
    named.push_str(rest);
    fs::write(path, named)?;
    Ok(())
}

/// One line for each field that holds a message, bytes or text: the message's name, the field's name, its number and
/// the name of the message that it holds, if it holds one.
fn message_fields(descriptors: &[u8]) -> Result<String, Box<dyn std::error::Error>> {
    let mut lines = String::new();
    for file in &FileDescriptorSet::decode(descriptors)?.file {
        for message in &file.message_type {
            collect(file.package(), message, &mut lines);
        }
    }
    Ok(lines)
}

fn collect(scope: &str, message: &DescriptorProto, lines: &mut String) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        let is_text = matches!(field.r#type(), Type::Bytes | Type::String);
        if field.r#type() == Type::Message || is_text {
            let holds = field.type_name().trim_start_matches('.');
            *lines += &format!("{name} {} {} {holds}\n", field.name(), field.number());
        }
    }
    for nested in &message.nested_type {
        collect(&name, nested, lines);
    }
}
