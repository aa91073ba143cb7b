//! Namespaces: register, describe, list, update, deprecate.

use std::sync::Arc;

use steadfast_engine::proto::enums::{ArchivalState, NamespaceState};
use steadfast_engine::proto::namespace::{
    NamespaceConfig, NamespaceInfo,
    namespace_info::{Capabilities, Limits},
};
use steadfast_engine::proto::workflowservice::{
    DeprecateNamespaceRequest, DeprecateNamespaceResponse, DescribeNamespaceRequest,
    DescribeNamespaceResponse, ListNamespacesRequest, ListNamespacesResponse,
    RegisterNamespaceRequest, RegisterNamespaceResponse, UpdateNamespaceRequest,
    UpdateNamespaceResponse,
};
use steadfast_engine::time::{SECOND, duration, span};
use steadfast_runtime::calls::validate;
use steadfast_runtime::namespaces::Namespace;
use steadfast_runtime::{Permit, Runtime, RuntimeError};
use temporalio_protos::temporal::api::replication::v1::{
    ClusterReplicationConfig, NamespaceReplicationConfig,
};

use tokio::sync::Mutex;

use super::system::CLUSTER;

/// Held while namespaces are read, changed and written: of two changes at once none is lost, and a
/// name is given only once.
pub(super) static CHANGES: Mutex<()> = Mutex::const_new(());

/// Shortest retention.
const MIN_RETENTION: i64 = 3600 * SECOND;

pub(crate) async fn register(
    runtime: &Runtime,
    permit: &Permit,
    request: RegisterNamespaceRequest,
) -> Result<RegisterNamespaceResponse, RuntimeError> {
    validate::name("Namespace", &request.namespace, runtime.limits().id_bytes)?;
    if request.is_global_namespace {
        return Err(RuntimeError::invalid(
            "global namespaces are not supported by this server",
        ));
    }
    let retention = span(&request.workflow_execution_retention_period);
    check_retention(retention)?;
    let namespace = Namespace {
        description: request.description,
        owner_email: request.owner_email,
        data: request.data.into_iter().collect(),
        retention,
        ..Namespace::new(&request.namespace)
    };
    let _changes = CHANGES.lock().await;
    runtime.register_namespace(permit, namespace).await?;
    Ok(RegisterNamespaceResponse {})
}

pub(crate) async fn describe(
    runtime: &Runtime,
    _permit: &Permit,
    request: DescribeNamespaceRequest,
) -> Result<DescribeNamespaceResponse, RuntimeError> {
    let namespace = match (request.namespace.as_str(), request.id.as_str()) {
        (name, "") => runtime.namespaces().by_name(name)?,
        ("", id) => runtime.namespaces().by_id(id)?,
        _ => {
            return Err(RuntimeError::invalid(
                "Both the name and the id are set on request.",
            ));
        }
    };
    Ok(description(runtime, &namespace))
}

pub(crate) async fn list(
    runtime: &Runtime,
    _permit: &Permit,
    request: ListNamespacesRequest,
) -> Result<ListNamespacesResponse, RuntimeError> {
    let with_deleted = request
        .namespace_filter
        .is_some_and(|filter| filter.include_deleted);
    let page_size = match usize::try_from(request.page_size) {
        Ok(0) | Err(_) => 100,
        Ok(asked) => asked.min(1000),
    };
    // The token is the name of the last namespace of the page before.
    let after = String::from_utf8(request.next_page_token)
        .map_err(|_| RuntimeError::invalid("Invalid NextPageToken."))?;
    let wanted = |namespace: &Arc<Namespace>| {
        namespace.name > after
            && (with_deleted || namespace.state != NamespaceState::Deleted as i32)
    };
    let mut found: Vec<_> = runtime
        .namespaces()
        .all()
        .into_iter()
        .filter(wanted)
        .collect();
    let more = found.len() > page_size;
    found.truncate(page_size);
    let next_page_token = match found.last() {
        Some(last) if more => last.name.clone().into_bytes(),
        _ => Vec::new(),
    };
    let namespaces = found
        .iter()
        .map(|namespace| description(runtime, namespace))
        .collect();
    Ok(ListNamespacesResponse {
        namespaces,
        next_page_token,
    })
}

pub(crate) async fn update(
    runtime: &Runtime,
    permit: &Permit,
    request: UpdateNamespaceRequest,
) -> Result<UpdateNamespaceResponse, RuntimeError> {
    let _changes = CHANGES.lock().await;
    let mut namespace = (*runtime.namespaces().by_name(&request.namespace)?).clone();
    check_not_deleted(&namespace)?;
    if request.promote_namespace || request.replication_config.is_some() {
        return Err(RuntimeError::invalid(
            "replication is not supported by this server",
        ));
    }
    if let Some(info) = request.update_info {
        if !info.description.is_empty() {
            namespace.description = info.description;
        }
        if !info.owner_email.is_empty() {
            namespace.owner_email = info.owner_email;
        }
        namespace.data.extend(info.data);
        namespace.state = next_state(namespace.state, info.state)?;
    }
    if let Some(config) = request.config
        && config.workflow_execution_retention_ttl.is_some()
    {
        namespace.retention = span(&config.workflow_execution_retention_ttl);
        check_retention(namespace.retention)?;
    }
    runtime.put_namespace(permit, namespace.clone()).await?;
    let described = description(runtime, &namespace);
    Ok(UpdateNamespaceResponse {
        namespace_info: described.namespace_info,
        config: described.config,
        replication_config: described.replication_config,
        ..Default::default()
    })
}

pub(crate) async fn deprecate(
    runtime: &Runtime,
    permit: &Permit,
    request: DeprecateNamespaceRequest,
) -> Result<DeprecateNamespaceResponse, RuntimeError> {
    let _changes = CHANGES.lock().await;
    let mut namespace = (*runtime.namespaces().by_name(&request.namespace)?).clone();
    check_not_deleted(&namespace)?;
    namespace.state = NamespaceState::Deprecated as i32;
    runtime.put_namespace(permit, namespace).await?;
    Ok(DeprecateNamespaceResponse {})
}

/// The state after a change that asks for `asked`.
fn next_state(current: i32, asked: i32) -> Result<i32, RuntimeError> {
    if asked == NamespaceState::Unspecified as i32 || asked == current {
        return Ok(current);
    }
    // Not Deleted: retention would delete its runs while its name still looks alive. Deleting has a
    // call of its own.
    match asked == NamespaceState::Deprecated as i32 {
        true => Ok(asked),
        false => Err(RuntimeError::invalid("Invalid namespace state update.")),
    }
}

fn check_not_deleted(namespace: &Namespace) -> Result<(), RuntimeError> {
    match namespace.state == NamespaceState::Deleted as i32 {
        true => Err(RuntimeError::failed_precondition(
            "Namespace has invalid state: Deleted. Must be Registered or Deprecated.",
        )),
        false => Ok(()),
    }
}

fn check_retention(retention: i64) -> Result<(), RuntimeError> {
    match retention >= MIN_RETENTION {
        true => Ok(()),
        false => Err(RuntimeError::invalid(
            "A valid retention period is not set on request.",
        )),
    }
}

fn description(runtime: &Runtime, namespace: &Namespace) -> DescribeNamespaceResponse {
    let limits = runtime.limits();
    let bytes = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    DescribeNamespaceResponse {
        namespace_info: Some(NamespaceInfo {
            name: namespace.name.clone(),
            state: namespace.state,
            description: namespace.description.clone(),
            owner_email: namespace.owner_email.clone(),
            data: namespace.data.clone().into_iter().collect(),
            id: namespace.id.clone(),
            capabilities: Some(Capabilities {
                eager_workflow_start: true,
                sync_update: true,
                async_update: true,
                worker_heartbeats: true,
                worker_poll_complete_on_shutdown: true,
                workflow_pause: true,
                ..Default::default()
            }),
            limits: Some(Limits {
                blob_size_limit_error: bytes(limits.blob_bytes),
                memo_size_limit_error: bytes(limits.memo_bytes),
                ..Default::default()
            }),
            supports_schedules: false,
        }),
        config: Some(NamespaceConfig {
            workflow_execution_retention_ttl: Some(duration(namespace.retention)),
            history_archival_state: ArchivalState::Disabled as i32,
            visibility_archival_state: ArchivalState::Disabled as i32,
            ..Default::default()
        }),
        replication_config: Some(NamespaceReplicationConfig {
            active_cluster_name: CLUSTER.into(),
            clusters: vec![ClusterReplicationConfig {
                cluster_name: CLUSTER.into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_deprecated_but_neither_deleted_nor_revived_by_an_update() {
        use NamespaceState::{Deleted, Deprecated, Registered, Unspecified};
        let next = |current: NamespaceState, asked: i32| next_state(current as i32, asked).ok();
        assert_eq!(
            next(Registered, Unspecified as i32),
            Some(Registered as i32)
        );
        assert_eq!(next(Registered, Deprecated as i32), Some(Deprecated as i32));
        assert_eq!(next(Deprecated, Deprecated as i32), Some(Deprecated as i32));
        for asked in [Deleted as i32, 4, 99] {
            assert_eq!(next(Registered, asked), None, "{asked}");
        }
        assert_eq!(next(Deprecated, Registered as i32), None);
    }
}
