//! Search attributes, deleting namespaces, and the cluster that a server is.

use std::collections::HashMap;

use steadfast_engine::proto::enums::{IndexedValueType, NamespaceState};
use steadfast_engine::proto::operatorservice::{
    AddSearchAttributesRequest, AddSearchAttributesResponse, ClusterMetadata,
    DeleteNamespaceRequest, DeleteNamespaceResponse, ListClustersRequest, ListClustersResponse,
    ListSearchAttributesRequest, ListSearchAttributesResponse, RemoveSearchAttributesRequest,
    RemoveSearchAttributesResponse,
};
use steadfast_runtime::aggregate::SLOTS;
use steadfast_runtime::calls::validate;
use steadfast_runtime::{Permit, Runtime, RuntimeError};
use steadfast_store::filter::{PREDEFINED_ATTRIBUTES, SYSTEM_ATTRIBUTES};

use super::namespaces::CHANGES;
use super::system::CLUSTER;

/// No search attributes here, but fields of runs elsewhere: their names would mislead.
const RESERVED: &[&str] = &["Memo", "MemoEncoding", "NamespaceId", "VisibilityTaskKey"];

/// Most custom search attributes of a namespace: each has an index of its own.
const MAX_ATTRIBUTES: usize = 100;

pub(crate) async fn add_search_attributes(
    runtime: &Runtime,
    permit: &Permit,
    request: AddSearchAttributesRequest,
) -> Result<AddSearchAttributesResponse, RuntimeError> {
    let _changes = CHANGES.lock().await;
    let mut namespace = (*runtime
        .namespaces()
        .by_name(or_default(&request.namespace))?)
    .clone();
    if request.search_attributes.is_empty() {
        return Err(RuntimeError::invalid(
            "SearchAttributes are not set on request.",
        ));
    }
    for (name, number) in &request.search_attributes {
        validate::name("Search attribute", name, runtime.limits().id_bytes)?;
        if is_reserved(name) {
            return Err(RuntimeError::invalid(format!(
                "Search attribute {name} is reserved by system."
            )));
        }
        let value_type =
            IndexedValueType::try_from(*number).unwrap_or(IndexedValueType::Unspecified);
        if value_type == IndexedValueType::Unspecified {
            return Err(RuntimeError::invalid(format!(
                "Unable to parse search attribute type: {number}"
            )));
        }
        match namespace.search_attributes.get(name) {
            Some(present) if present != number => {
                return Err(RuntimeError::invalid(format!(
                    "Search attribute {name} already exists and has different type."
                )));
            }
            _ => {}
        }
    }
    namespace
        .search_attributes
        .extend(request.search_attributes.clone());
    if namespace.search_attributes.len() > MAX_ATTRIBUTES {
        return Err(RuntimeError::failed_precondition(format!(
            "a namespace has at most {MAX_ATTRIBUTES} custom search attributes"
        )));
    }
    for (name, number) in &request.search_attributes {
        runtime
            .store()
            .add_search_attribute(&namespace.id, name, *number)
            .await?;
    }
    runtime.put_namespace(permit, namespace).await?;
    Ok(AddSearchAttributesResponse {})
}

pub(crate) async fn remove_search_attributes(
    runtime: &Runtime,
    permit: &Permit,
    request: RemoveSearchAttributesRequest,
) -> Result<RemoveSearchAttributesResponse, RuntimeError> {
    let _changes = CHANGES.lock().await;
    let mut namespace = (*runtime
        .namespaces()
        .by_name(or_default(&request.namespace))?)
    .clone();
    if request.search_attributes.is_empty() {
        return Err(RuntimeError::invalid(
            "SearchAttributes are not set on request.",
        ));
    }
    for name in &request.search_attributes {
        if is_reserved(name) {
            return Err(RuntimeError::invalid(format!(
                "Unable to remove non-custom search attributes: {name}."
            )));
        }
        namespace.search_attributes.remove(name);
    }
    runtime.put_namespace(permit, namespace).await?;
    Ok(RemoveSearchAttributesResponse {})
}

pub(crate) async fn list_search_attributes(
    runtime: &Runtime,
    _permit: &Permit,
    request: ListSearchAttributesRequest,
) -> Result<ListSearchAttributesResponse, RuntimeError> {
    let namespace = runtime
        .namespaces()
        .by_name(or_default(&request.namespace))?;
    Ok(ListSearchAttributesResponse {
        custom_attributes: namespace.search_attributes.clone().into_iter().collect(),
        system_attributes: system_attributes(),
        storage_schema: HashMap::new(),
    })
}

pub(crate) async fn delete_namespace(
    runtime: &Runtime,
    permit: &Permit,
    request: DeleteNamespaceRequest,
) -> Result<DeleteNamespaceResponse, RuntimeError> {
    let _changes = CHANGES.lock().await;
    let found = match (
        request.namespace.is_empty(),
        request.namespace_id.is_empty(),
    ) {
        (false, true) => runtime.namespaces().by_name(&request.namespace)?,
        (true, false) => runtime.namespaces().by_id(&request.namespace_id)?,
        _ => {
            return Err(RuntimeError::invalid(
                "Exactly one of namespace name and namespace id has to be set on request.",
            ));
        }
    };
    if found.state == NamespaceState::Deleted as i32 {
        return Ok(DeleteNamespaceResponse {
            deleted_namespace: found.name.clone(),
        });
    }
    let mut namespace = (*found).clone();
    // The name is free at once; what belongs to the namespace is deleted in the background.
    namespace.name = format!(
        "{}-deleted-{}",
        namespace.name,
        &namespace.id[..5.min(namespace.id.len())]
    );
    namespace.state = NamespaceState::Deleted as i32;
    let deleted_namespace = namespace.name.clone();
    runtime.put_namespace(permit, namespace).await?;
    Ok(DeleteNamespaceResponse { deleted_namespace })
}

pub(crate) async fn list_clusters(
    runtime: &Runtime,
    _permit: &Permit,
    _request: ListClustersRequest,
) -> Result<ListClustersResponse, RuntimeError> {
    Ok(ListClustersResponse {
        clusters: vec![ClusterMetadata {
            cluster_name: CLUSTER.into(),
            cluster_id: runtime.cluster_id(),
            history_shard_count: i32::from(SLOTS),
            initial_failover_version: 1,
            is_connection_enabled: true,
            ..Default::default()
        }],
        next_page_token: Vec::new(),
    })
}

/// The attributes that every namespace has, with their types.
pub(crate) fn system_attributes() -> HashMap<String, i32> {
    SYSTEM_ATTRIBUTES
        .iter()
        .chain(PREDEFINED_ATTRIBUTES)
        .map(|(name, value_type)| ((*name).to_owned(), value_type.number()))
        .collect()
}

fn is_reserved(name: &str) -> bool {
    SYSTEM_ATTRIBUTES
        .iter()
        .chain(PREDEFINED_ATTRIBUTES)
        .any(|(reserved, _)| *reserved == name)
        || RESERVED.contains(&name)
        || name.starts_with("Temporal")
}

fn or_default(name: &str) -> &str {
    if name.is_empty() { "default" } else { name }
}
