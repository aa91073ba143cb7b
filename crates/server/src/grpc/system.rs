//! What the server is and can do. It claims only what works.

use steadfast_engine::proto::version::{ReleaseInfo, VersionInfo};
use steadfast_engine::proto::workflowservice::{
    GetClusterInfoRequest, GetClusterInfoResponse, GetSystemInfoRequest, GetSystemInfoResponse,
    get_system_info_response::Capabilities,
};
use steadfast_runtime::aggregate::SLOTS;
use steadfast_runtime::{Permit, Runtime, RuntimeError};

/// Version of the Temporal server whose behaviour this one follows, and its own.
pub(crate) const SERVER_VERSION: &str = concat!("1.30.0-steadfast.", env!("CARGO_PKG_VERSION"));

/// The one cluster that a server is.
pub(crate) const CLUSTER: &str = "active";

pub(crate) async fn system_info(
    _runtime: &Runtime,
    _permit: &Permit,
    _request: GetSystemInfoRequest,
) -> Result<GetSystemInfoResponse, RuntimeError> {
    Ok(GetSystemInfoResponse {
        server_version: SERVER_VERSION.into(),
        capabilities: Some(Capabilities {
            signal_and_query_header: true,
            internal_error_differentiation: true,
            activity_failure_include_heartbeat: true,
            supports_schedules: false,
            encoded_failure_attributes: true,
            build_id_based_versioning: false,
            upsert_memo: true,
            eager_workflow_start: true,
            sdk_metadata: true,
            count_group_by_execution_status: true,
            nexus: false,
            server_scaled_deployments: false,
            ..Default::default()
        }),
    })
}

pub(crate) async fn cluster_info(
    runtime: &Runtime,
    _permit: &Permit,
    _request: GetClusterInfoRequest,
) -> Result<GetClusterInfoResponse, RuntimeError> {
    let versions = [
        ("temporal-cli", ">=0.0.0"),
        ("temporal-go", ">=0.0.0"),
        ("temporal-python", ">=0.0.0"),
    ];
    Ok(GetClusterInfoResponse {
        supported_clients: versions
            .map(|(name, of)| (name.to_owned(), of.to_owned()))
            .into(),
        server_version: SERVER_VERSION.into(),
        cluster_id: runtime.cluster_id(),
        version_info: Some(VersionInfo {
            current: Some(ReleaseInfo {
                version: SERVER_VERSION.into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        cluster_name: CLUSTER.into(),
        history_shard_count: i32::from(SLOTS),
        persistence_store: "sqlite".into(),
        visibility_store: "sqlite".into(),
        initial_failover_version: 1,
        failover_version_increment: 10,
    })
}
