//! Who may do what by the starter policies: a committed table, and that nothing is missing in it.
//!
//! `STEADFAST_WRITE_TABLE=1 cargo test -p steadfast-server the_table` writes it: read what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::http::{self, Request as HttpRequest};
use proptest::prelude::{ProptestConfig, Strategy as _, any, prop, proptest};
use prost::Message;
use steadfast_api::operatorservice::operator_service_server::OperatorServiceServer;
use steadfast_api::workflowservice::workflow_service_server::WorkflowServiceServer;
use steadfast_policy::{
    Action, Command, ExchangeContext, Policies, Principal, Request, Resource, ToolContext, Verdict,
    starter,
};
use steadfast_runtime::Runtime;
use steadfast_store::sqlite::SqliteStore;
use tower::{Service as _, ServiceExt as _};

use super::*;
use crate::evidence::{Logs, Witnesses};
use crate::grpc::Service;

const TABLE: &str = include_str!("actors.txt");

/// What everybody may ask who is let in.
const OPEN: [&str; 6] = [
    "GET /",
    "GET /.well-known/openid-configuration",
    "GET /healthz",
    "GET /oauth/jwks",
    "GET /ui/assets/{name}",
    "POST /oauth/token",
];

/// Actions that are neither a command of an agent, a method of gRPC that is built, nor a route.
const OTHERS: [&str; 2] = ["ExchangeCredential", "ServerReflectionInfo"];

/// The columns: members of each group, and who is in none.
fn actors() -> Vec<&'static str> {
    starter::GROUPS.into_iter().chain(["nobody"]).collect()
}

fn may(policies: &Policies, actor: &str, action: Action) -> bool {
    let principal = match action.is_of_agents() {
        // Only sessions do that, and they are in no group.
        true => Principal {
            kind: steadfast_policy::Kind::Agent,
            id: "default/Agent".into(),
            ..Principal::default()
        },
        false => Principal {
            kind: steadfast_policy::Kind::Service,
            id: "api-key#somebody".into(),
            groups: vec![actor.to_owned()],
            method: "api-key".into(),
        },
    };
    let resource = match action.command() {
        None if action.name() == "ExchangeCredential" => {
            Resource::Audience(Box::new(ExchangeContext {
                audience: "https://pay.example",
                namespace: "default",
                ..ExchangeContext::default()
            }))
        }
        Some(command) => Resource::Tool(Box::new(ToolContext {
            command,
            namespace: "default",
            tool: "refund",
            ..ToolContext::default()
        })),
        None => Resource::Namespace {
            name: "default",
            workflow_id: "order-7",
            workflow_type: "",
            task_queue: "",
            attested: false,
        },
    };
    let decision = policies.decide(&Request {
        principal: &principal,
        action,
        resource,
    });
    decision.verdict == Verdict::Allow
}

fn row(out: &mut String, name: &str, cells: impl IntoIterator<Item = &'static str>) {
    let mut line = format!("{name:<42}");
    for cell in cells {
        let _ = write!(line, " {cell:<8}");
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

/// The table of actions, and after it the routes with their actions.
fn table(routes: &BTreeMap<String, String>) -> String {
    let policies = starter::policies().expect("are valid");
    let mut out = String::new();
    row(&mut out, "", actors());
    for action in Action::all() {
        let cell = |actor| match may(&policies, actor, action) {
            true => "yes",
            false => "-",
        };
        let cells: Vec<_> = match action.is_of_agents() {
            true => vec![match may(&policies, "", action) {
                true => "sessions",
                false => "-",
            }],
            false => actors().into_iter().map(cell).collect(),
        };
        row(&mut out, action.name(), cells);
    }
    let _ = writeln!(out);
    for (route, action) in routes {
        let _ = writeln!(out, "{route:<58} {action}");
    }
    out
}

async fn runtime() -> Runtime {
    let store = Arc::new(SqliteStore::open_in_memory().expect("a store"));
    let runtime = Runtime::open(store, Default::default()).await;
    runtime.expect("a runtime")
}

/// A gate that nobody passes.
fn closed() -> Gate {
    let policies = InForce::default();
    policies.set(Some(Policies::parse(&[]).expect("none are valid")));
    Gate::new(true, policies, Refusals::default())
}

fn nobody() -> Arc<Identity> {
    Arc::new(Identity::for_tests(
        "https://i.example",
        "nobody",
        Vec::new(),
    ))
}

/// As much of `google.protobuf.FileDescriptorSet` as is needed.
#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(message, repeated, tag = "6")]
    services: Vec<Methods>,
}

#[derive(Clone, PartialEq, Message)]
struct Methods {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
}

/// All methods of a service.
fn methods(service: &str) -> Vec<String> {
    let files = Files::decode(steadfast_api::FILE_DESCRIPTOR_SET);
    let files = files.expect("a descriptor").files;
    let services = files.into_iter().flat_map(|file| file.services);
    let methods = services.filter(|of| of.name == service);
    let methods = methods.flat_map(|of| of.methods.into_iter().map(|of| of.name));
    methods.collect()
}

/// The names of the methods that are built. Each of them has to refuse nobody, by its own name.
async fn built(runtime: &Runtime) -> BTreeSet<String> {
    let service = Service::new(runtime.clone(), closed());
    let mut workflow = WorkflowServiceServer::new(service.clone());
    let mut operator = OperatorServiceServer::new(service);
    let mut built = BTreeSet::new();
    for name in ["WorkflowService", "OperatorService"] {
        for method in methods(name) {
            let package = name.to_lowercase();
            let uri = format!("/temporal.api.{package}.v1.{name}/{method}");
            // An empty message.
            let mut request = HttpRequest::new(tonic::body::Body::new(Body::from(vec![0_u8; 5])));
            *request.method_mut() = http::Method::POST;
            *request.uri_mut() = uri.parse().expect("a path");
            let kind = http::HeaderValue::from_static("application/grpc");
            request
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, kind);
            request.extensions_mut().insert(nobody());
            let answer = match name {
                "WorkflowService" => workflow.call(request).await,
                _ => operator.call(request).await,
            };
            let answer = answer.expect("an answer");
            let header = |name| answer.headers().get(name).and_then(|of| of.to_str().ok());
            let message = header("grpc-message").unwrap_or_default();
            match header("grpc-status") {
                Some("12") => continue,
                Some("7") => assert!(message.starts_with(&format!("{method}%20")), "{message}"),
                other => panic!("nobody is let into {method}: {other:?} {message}"),
            }
            built.insert(method);
        }
    }
    built
}

/// The routes of a router. It does not tell them, but it shows them.
fn shown(router: &axum::Router) -> Vec<(String, String)> {
    let text = format!("{router:?}");
    let mut paths = BTreeMap::new();
    let names = text.split("paths: {").nth(1).expect("paths are shown");
    let names = names.split('}').collect::<Vec<_>>().join("}");
    // RouteId(3): "/api/v1/status"
    for part in names.split("RouteId(").skip(1) {
        let Some((id, rest)) = part.split_once("): \"") else {
            continue;
        };
        let path = rest.split('"').next().expect("a path");
        paths.insert(id.to_owned(), path.to_owned());
    }
    let mut routes = Vec::new();
    for part in text.split("RouteId(").skip(1) {
        let Some((id, rest)) = part.split_once("): MethodRouter(") else {
            continue;
        };
        for method in ["get", "delete", "patch", "post", "put"] {
            let field = format!("{method}: ");
            let value = rest.split(&*field).nth(1).expect("its methods are shown");
            if !value.starts_with("None") {
                routes.push((method.to_uppercase(), paths[id].clone()));
            }
        }
    }
    routes
}

/// Each route with the action that it asks for: nobody is refused, and told which.
async fn routes(runtime: &Runtime) -> BTreeMap<String, String> {
    let router = crate::http::routes(
        runtime.clone(),
        Logs::default(),
        Witnesses::default(),
        None,
        None,
    );
    let shown = shown(&router);
    assert!(shown.len() > 20, "{shown:?}");
    let router = router.layer(Extension(closed())).layer(Extension(nobody()));
    let mut routes = BTreeMap::new();
    for (method, path) in shown {
        let named = path.replace("{namespace}", "default");
        let named = named.replace("{*path}", "0/000");
        let named = named.replace("{index}", "0").replace("{number}", "0");
        let named = named.replace("{id}", "0").replace("{hash}", "0");
        let body = match path.as_str() {
            "/api/v1/keys" => r#"{"name":"n","kind":"user"}"#,
            _ => "{}",
        };
        let request = HttpRequest::builder()
            .method(&*method)
            .uri(&named)
            .header("content-type", "application/json")
            .body(Body::from(body))
            .expect("a request");
        let answer = router.clone().oneshot(request).await.expect("an answer");
        let (status, body) = (answer.status(), answer.into_body());
        let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        let body = String::from_utf8_lossy(&body);
        let route = format!("{method} {path}");
        if OPEN.contains(&&*route) {
            routes.insert(route, "(open)".to_owned());
            continue;
        }
        assert_eq!(status, http::StatusCode::FORBIDDEN, "{route}: {body}");
        // The text begins with it, or an element of a page does.
        let (before, _) = body.split_once(" is denied").expect("says what is denied");
        let action = before.rsplit([' ', '>']).next().unwrap_or_default();
        routes.insert(route, action.to_owned());
    }
    routes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_says_who_may_do_what() {
    let runtime = runtime().await;
    let (built, routes) = (built(&runtime).await, routes(&runtime).await);
    runtime.stop();
    let actions: BTreeSet<String> = Action::all().map(|of| of.name().to_owned()).collect();
    let asked = routes.values().filter(|of| *of != "(open)").cloned();
    let mut called: BTreeSet<String> = built.into_iter().chain(asked).collect();
    called.extend(OTHERS.map(str::to_owned));
    called.extend(Command::ALL.map(|of| of.action_name().to_owned()));
    let without: Vec<_> = called.difference(&actions).collect();
    assert!(without.is_empty(), "in no table: {without:?}");
    let unused: Vec<_> = actions.difference(&called).collect();
    assert!(unused.is_empty(), "actions of nothing: {unused:?}");
    let table = table(&routes);
    if std::env::var_os("STEADFAST_WRITE_TABLE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/gate/actors.txt");
        std::fs::write(path, table).expect("is written");
        return;
    }
    let differs = table.lines().zip(TABLE.lines()).find(|(is, was)| is != was);
    assert_eq!(differs, None, "who may do what has changed");
    assert_eq!(table, TABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_or_body_is_too_odd_for_a_route() {
    let runtime = runtime().await;
    let router = crate::http::routes(
        runtime.clone(),
        Logs::default(),
        Witnesses::default(),
        None,
        None,
    );
    let shown = shown(&router);
    let router = router.layer(Extension(Gate::default()));
    let handle = tokio::runtime::Handle::current();
    let texts = proptest::prop_oneof![
        any::<Vec<u8>>(),
        any::<String>().prop_map(String::into_bytes),
        r#"\{("(workflowId|runId|activityId|digest|name|kind|reason|identity)":("[^"\\\\]{0,9}"|[0-9]{1,3}|null),?){0,4}\}"#
            .prop_map(String::into_bytes),
    ];
    let config = ProptestConfig::with_cases(300);
    tokio::task::block_in_place(|| {
        proptest!(config, |(
            route in prop::sample::select(shown),
            part in "[a-z0-9%./-]{1,12}",
            query in "(\\?[a-z_]{1,9}=[a-z0-9%:.-]{0,9})?",
            body in texts,
        )| {
            let (method, path) = route;
            // A part between braces is anything.
            let path = path.split('{').map(|of| of.split_once('}').map_or(of, |of| of.1));
            let uri = format!("{}{query}", path.collect::<Vec<_>>().join(&part));
            let request = HttpRequest::builder().method(&*method).uri(uri);
            let request = request.header("content-type", "application/json");
            // What is no path does not come here.
            let Ok(request) = request.body(Body::from(body)) else {
                return Ok(());
            };
            let answer = handle.block_on(router.clone().oneshot(request));
            assert_ne!(
                answer.expect("an answer").status(),
                http::StatusCode::INTERNAL_SERVER_ERROR,
                "{method}"
            );
        });
    });
    runtime.stop();
}
