//! gRPC service traits and clients of the Temporal API, over the messages of `temporalio-protos`.
//!
//! This crate holds generated code and nothing else, so that touching the server does not compile
//! it again. Every method has a default that answers UNIMPLEMENTED and says which method that is.
#![allow(missing_docs, clippy::all)]

pub use temporalio_protos::temporal::api as messages;

/// The compiled descriptors of the whole Temporal API (a `google.protobuf.FileDescriptorSet`), for
/// reflection and for canonical proto JSON.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The fields of the API's messages that hold messages, bytes or text, one per line: the message's
/// full name, the field's name, its number, and the full name of the message that it holds, if any.
pub const MESSAGE_FIELDS: &str = include_str!(concat!(env!("OUT_DIR"), "/message_fields.txt"));

pub mod workflowservice {
    tonic::include_proto!("temporal.api.workflowservice.v1");
}

pub mod operatorservice {
    tonic::include_proto!("temporal.api.operatorservice.v1");
}

pub mod testservice {
    tonic::include_proto!("temporal.api.testservice.v1");
}
