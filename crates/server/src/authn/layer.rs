//! Authentication in the way of requests: every one gets its identity, or is refused.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{self, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::future::Either;
use tonic::Status;
use tower::{Layer, Service};

use crate::gate::Public;

use super::{Authenticator, Identity, Peer, Refusal};

/// The one service of gRPC that everybody may ask: load balancers do.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// Authenticates gRPC requests. Without an authenticator they pass as they are.
#[derive(Clone)]
pub(crate) struct AuthLayer(pub Option<Authenticator>);

impl<S> Layer<S> for AuthLayer {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authenticated {
            inner,
            authenticator: self.0.clone(),
        }
    }
}

/// A service whose requests have identities.
#[derive(Clone)]
pub(crate) struct Authenticated<S> {
    inner: S,
    authenticator: Option<Authenticator>,
}

impl<S, B, R> Service<http::Request<B>> for Authenticated<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future =
        Either<S::Future, Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let authenticator = match &self.authenticator {
            Some(authenticator) if !request.uri().path().starts_with(HEALTH) => {
                authenticator.clone()
            }
            _ => return Either::Left(self.inner.call(request)),
        };
        // The one that was polled is ready; the copy may not be.
        let copy = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, copy);
        Either::Right(Box::pin(async move {
            let peer = request.extensions().get::<Peer>().cloned();
            let known = authenticator.authenticate(request.headers(), peer.as_ref());
            let identity = match known.await {
                Ok(identity) => identity,
                Err(refusal) => {
                    let path = request.uri().path();
                    tracing::debug!(path, %refusal, "a gRPC request was refused");
                    authenticator.count(&refusal);
                    return Ok(status(&refusal).into_http());
                }
            };
            request.extensions_mut().insert(identity.clone());
            // A poll may wait for a minute. A caller that is shut out is not to get a task of it.
            tokio::select! {
                answer = inner.call(request) => answer,
                () = identity.revoked() => Ok(status(&shut_out()).into_http()),
            }
        }))
    }
}

fn shut_out() -> Refusal {
    Refusal::because("the credential was revoked")
}

fn status(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::Unauthenticated(why) => Status::unauthenticated(why),
        Refusal::Unavailable(why) => Status::unavailable(why),
    }
}

/// Authenticates HTTP requests.
pub(crate) async fn require(
    State(authenticator): State<Authenticator>,
    mut request: Request,
    next: Next,
) -> Response {
    if authenticator.is_open(request.uri().path()) {
        request.extensions_mut().insert(Public);
        return next.run(request).await;
    }
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let peer = peer.map(|ConnectInfo(peer)| peer.clone());
    let known = authenticator.authenticate(request.headers(), peer.as_ref());
    match known.await {
        Ok(identity) => {
            request.extensions_mut().insert(identity.clone());
            // What is asked for is done: it may be the revocation of the key that asks. Answers that go
            // on are another thing.
            until_revoked(next.run(request).await, identity)
        }
        Err(refusal) => {
            let path = request.uri().path();
            tracing::debug!(path, %refusal, "an HTTP request was refused");
            authenticator.count(&refusal);
            refused(&refusal)
        }
    }
}

fn refused(refusal: &Refusal) -> Response {
    let message = format!("{refusal}\n");
    match refusal {
        Refusal::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, message).into_response(),
        Refusal::Unauthenticated(_) => {
            let mut response = (StatusCode::UNAUTHORIZED, message).into_response();
            let scheme = HeaderValue::from_static("Bearer realm=\"steadfast\"");
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, scheme);
            response
        }
    }
}

/// Breaks an answer off that goes on when its reader is shut out: some follow a log for days.
fn until_revoked(response: Response, identity: Arc<Identity>) -> Response {
    if identity.revoked.is_none() || response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| {
        let pieces = body.into_data_stream();
        let revoked = Box::pin(async move { identity.revoked().await });
        let end = futures::stream::once(revoked)
            .map(|()| Err(axum::Error::new(std::io::Error::other(shut_out()))));
        let is_last = |piece: &Result<axum::body::Bytes, axum::Error>| piece.is_err();
        Body::from_stream(race(pieces, end, is_last))
    })
}

/// The pieces of a stream, up to its end or the first piece of the other one.
fn race<T>(
    pieces: impl futures::Stream<Item = T> + Send + Unpin,
    end: impl futures::Stream<Item = T> + Send + Unpin,
    is_last: impl Fn(&T) -> bool + Send,
) -> impl futures::Stream<Item = T> + Send {
    futures::stream::unfold(Some((pieces, end, is_last)), |state| async {
        let (mut pieces, mut end, is_last) = state?;
        let piece = tokio::select! {
            biased;
            last = end.next() => last,
            piece = pieces.next() => piece,
        }?;
        let state = (!is_last(&piece)).then_some((pieces, end, is_last));
        Some((piece, state))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use steadfast_runtime::Runtime;
    use steadfast_store::sqlite::SqliteStore;

    use super::*;
    use crate::Config;

    /// Answers with the principal.
    #[derive(Clone)]
    struct Principal;

    impl Service<http::Request<()>> for Principal {
        type Response = http::Response<String>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<()>) -> Self::Future {
            let identity = request.extensions().get::<Arc<Identity>>();
            let principal = identity.map_or("nobody".to_owned(), |of| of.principal());
            std::future::ready(Ok(http::Response::new(principal)))
        }
    }

    async fn call(layer: &AuthLayer, path: &str, key: Option<&str>) -> http::Response<String> {
        let mut request = http::Request::builder().uri(path);
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = request.body(()).expect("a request");
        let answer = layer.layer(Principal).call(request).await;
        answer.expect("an answer")
    }

    fn code(response: &http::Response<String>) -> Option<&str> {
        response.headers().get("grpc-status")?.to_str().ok()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_health_is_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        config.auth.api_keys = true;
        config.auth.admin_key = Some(folder.path().join("key"));
        let store = Arc::new(SqliteStore::open_in_memory().expect("a store"));
        let runtime = Runtime::open(store, config.settings()).await;
        let runtime = runtime.expect("a runtime");
        let opened = Authenticator::open(&runtime, &config).await;
        let layer = AuthLayer(opened.expect("an authenticator"));
        let key = std::fs::read_to_string(folder.path().join("key")).expect("a key");
        let key = key.trim();
        let open = "/grpc.health.v1.Health/Check";
        assert_eq!(call(&layer, open, None).await.body(), "nobody");
        let closed = [
            "/temporal.api.workflowservice.v1.WorkflowService/GetSystemInfo",
            "/temporal.api.operatorservice.v1.OperatorService/ListClusters",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/grpc.health.v1.Health",
            "//grpc.health.v1.Health/Check",
            "/",
        ];
        for path in closed {
            let refused = call(&layer, path, None).await;
            assert_eq!(
                (code(&refused), &**refused.body()),
                (Some("16"), ""),
                "{path}"
            );
            let refused = call(&layer, path, Some("sfk_0_0")).await;
            assert_eq!(code(&refused), Some("16"), "{path}");
            let answer = call(&layer, path, Some(key)).await;
            assert_eq!((code(&answer), &**answer.body()), (None, "api-key#admin"));
        }
        runtime.stop();
    }

    #[tokio::test]
    async fn without_authentication_requests_pass_as_they_are() {
        let answer = call(&AuthLayer(None), "/any", None).await;
        assert_eq!(answer.body(), "nobody");
    }

    #[tokio::test]
    async fn an_answer_is_broken_off_when_its_reader_is_shut_out() {
        let (alive, revoked) = tokio::sync::watch::channel(());
        let mut identity = Identity::for_tests("https://i.example", "alice", Vec::new());
        identity.revoked = Some(revoked);
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<&str, axum::Error>>(1);
        let pieces = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        let response = Response::new(Body::from_stream(pieces));
        let mut body = until_revoked(response, Arc::new(identity))
            .into_body()
            .into_data_stream();
        sender.send(Ok("one")).await.expect("read");
        let piece = body.next().await.expect("a piece");
        assert_eq!(piece.expect("no error"), "one");
        drop(alive);
        let end = body.next().await.expect("an end");
        assert!(end.is_err());
        assert!(body.next().await.is_none());
    }
}
