//! What all pages have in common: who looks at them, their frame, and what is shown in place of a page
//! that is refused.

use std::convert::Infallible;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{Html, IntoResponse, Redirect, Response};
use maud::{DOCTYPE, Markup, html};
use steadfast_engine::proto::enums::NamespaceState;
use steadfast_runtime::{Permit, RuntimeError};
use tonic::Status;

use super::{Console, assets, text};
use crate::gate::{Caller, Target};
use crate::grpc::status;

/// A part of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Sessions,
    Approvals,
    Evidence,
    Policies,
    Workers,
    Namespaces,
}

impl Section {
    const ALL: [(Self, &'static str, &'static str); 6] = [
        (Self::Sessions, "Sessions", "sessions"),
        (Self::Approvals, "Approvals", "approvals"),
        (Self::Evidence, "Evidence", "evidence"),
        (Self::Policies, "Policies", "policies"),
        (Self::Workers, "Workers", "workers"),
        (Self::Namespaces, "Namespaces", ""),
    ];
}

/// Somebody looks at a page.
pub struct Visit {
    pub console: Console,
    pub caller: Caller,
    /// Commits of the server before anything was looked at.
    seen: u64,
}

impl<S> FromRequestParts<S> for Visit
where
    S: Sync,
    Console: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let Ok(caller) = Caller::from_request_parts(parts, state).await;
        let console = Console::from_ref(state);
        Ok(Self {
            seen: console.runtime.counters().1,
            console,
            caller,
        })
    }
}

/// What is wrong with a request, as a page says it.
pub struct Fault(pub Status);

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl From<RuntimeError> for Fault {
    fn from(error: RuntimeError) -> Self {
        Self(status(error))
    }
}

impl Fault {
    pub fn invalid(message: impl Into<String>) -> Self {
        Self(Status::invalid_argument(message))
    }
}

/// A page that is whole but for its frame.
pub struct Page {
    pub section: Section,
    /// Of the window, in front of the namespace's name.
    pub title: String,
    pub body: Markup,
    /// Whether it follows what happens.
    pub live: bool,
}

impl Visit {
    /// The base of a namespace's pages.
    pub fn base(namespace: &str) -> String {
        format!("/ui/namespaces/{}", text::encode(namespace))
    }

    /// The page of a session.
    pub fn session(namespace: &str, workflow_id: &str, run_id: &str) -> String {
        let query = text::query(&[("id", workflow_id), ("run", run_id)]);
        format!("{}/session{query}", Self::base(namespace))
    }

    /// Asks for a permit about a namespace.
    pub fn admit(&self, call: &str, namespace: &str) -> Result<Permit, Fault> {
        Ok(self.caller.admit(call, namespace, super::CLAIMED)?)
    }

    /// Asks for a permit about a workflow.
    pub fn admit_to(
        &self,
        call: &str,
        namespace: &str,
        workflow_id: &str,
    ) -> Result<Permit, Fault> {
        let target = Target::of(namespace).claimed(super::CLAIMED);
        Ok(self
            .caller
            .admit_to(call, &target.workflow_id(workflow_id))?)
    }

    /// Whether a call would be permitted.
    pub fn may(&self, call: &str, namespace: &str, workflow_id: &str) -> bool {
        let target = Target::of(namespace).workflow_id(workflow_id);
        self.caller.may(call, &target)
    }

    /// The field that every form has.
    pub fn token_field(&self) -> Markup {
        let token = self.console.tokens.make(&self.caller.principal());
        html! { input type="hidden" name="token" value=(token); }
    }

    /// Checks that a form is one of ours.
    pub fn check_token(&self, form: &[(String, String)]) -> Result<(), Fault> {
        let token = field(form, "token");
        match self.console.tokens.is_good(&self.caller.principal(), token) {
            true => Ok(()),
            false => Err(Fault(Status::permission_denied(
                "this form is from before the server was started, or from elsewhere: load its page again",
            ))),
        }
    }

    /// The whole page, or what is wrong in its place.
    pub async fn answer(
        &self,
        namespace: &str,
        section: Section,
        page: Result<Page, Fault>,
    ) -> Response {
        match page {
            Ok(page) => {
                let body = self.frame(namespace, &page).await;
                Html(body.into_string()).into_response()
            }
            Err(fault) => self.refusal(namespace, section, &fault).await,
        }
    }

    /// Goes to another page after something was done, or says what is wrong.
    pub async fn done(
        &self,
        namespace: &str,
        section: Section,
        next: Result<String, Fault>,
    ) -> Response {
        match next {
            Ok(next) => Redirect::to(&next).into_response(),
            Err(fault) => self.refusal(namespace, section, &fault).await,
        }
    }

    async fn refusal(&self, namespace: &str, section: Section, fault: &Fault) -> Response {
        let code = crate::http::refusal(&fault.0).status();
        let heading = match code {
            StatusCode::NOT_FOUND => "Not here",
            StatusCode::FORBIDDEN => "Not permitted",
            StatusCode::UNAUTHORIZED => "Who are you?",
            StatusCode::BAD_REQUEST => "That is not possible",
            StatusCode::CONFLICT => "Not in this state",
            _ => "This did not work",
        };
        let page = Page {
            section,
            title: heading.to_owned(),
            body: html! {
                section.fault {
                    h1 { (heading) }
                    p.reason { (text::prose(fault.0.message(), 2000)) }
                    p { a href=(Self::base(namespace) + "/sessions") { "Go to the sessions" } }
                }
            },
            live: false,
        };
        let body = self.frame(namespace, &page).await;
        (code, Html(body.into_string())).into_response()
    }

    async fn frame(&self, namespace: &str, page: &Page) -> Markup {
        let waiting = self.waiting(namespace).await;
        let live = page.live && self.console.can_follow();
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (text::plain(&page.title, 80)) " · Steadfast" }
                    link rel="stylesheet" href=(assets::style());
                    link rel="icon" type="image/svg+xml" href=(assets::icon());
                    script src=(assets::script()) defer {}
                }
                body data-live=[live.then(|| Self::base(namespace) + "/live")] data-seen=[live.then_some(self.seen)] {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        a.brand href="/ui" { (mark()) span { "Steadfast" } }
                        (self.namespace_menu(namespace, page.section))
                        nav aria-label="Parts of the console" {
                            @for (section, name, path) in Section::ALL {
                                a href=(match path { "" => "/ui/namespaces".to_owned(), path => format!("{}/{path}", Self::base(namespace)) })
                                  aria-current=[(section == page.section).then_some("page")] {
                                    (name)
                                    @if section == Section::Approvals {
                                        span #waiting.badge data-swap hidden[waiting.is_none()] { (waiting.as_deref().unwrap_or("")) }
                                    }
                                }
                            }
                        }
                        span.who title="who the server takes you for" {
                            @if self.caller.is_authenticated() { (text::prose(&self.caller.principal(), 60)) } @else { "nobody is authenticated" }
                        }
                    }
                    main #main { (page.body) }
                    footer {
                        span { "Steadfast " (env!("CARGO_PKG_VERSION")) }
                        span #zone { "Times are in UTC" }
                        span #following hidden[!live] { "Follows what happens" }
                    }
                }
            }
        }
    }

    fn namespace_menu(&self, namespace: &str, section: Section) -> Markup {
        if namespace.is_empty() {
            return html! {};
        }
        let known = self.console.runtime.namespaces().all();
        let is_there = |state: i32| state != NamespaceState::Deleted as i32;
        let others = known
            .iter()
            .filter(|of| is_there(of.state) && of.name != namespace);
        let sees_all = self.may("ListNamespaces", "", "");
        let others: Vec<_> = others.filter(|_| sees_all).take(50).collect();
        let path = Section::ALL.iter().find(|(of, ..)| *of == section);
        let path = path.map_or("sessions", |(_, _, path)| path);
        html! {
            @if others.is_empty() {
                span.namespace { (text::prose(namespace, 40)) }
            } @else {
                details.namespace.menu {
                    summary aria-label={ "Namespace " (text::plain(namespace, 40)) ", change it" } { (text::prose(namespace, 40)) }
                    ul {
                        @for other in others {
                            li { a href={ (Self::base(&other.name)) "/" (path) } { (text::prose(&other.name, 40)) } }
                        }
                    }
                }
            }
        }
    }

    /// How many sessions wait for people, where the visitor may see that.
    async fn waiting(&self, namespace: &str) -> Option<String> {
        if namespace.is_empty() || !self.may("ListApprovals", namespace, "") {
            return None;
        }
        let permit = self.caller.admit("ListApprovals", namespace, "").ok()?;
        let runs = self
            .console
            .runtime
            .sessions_that_wait(&permit, namespace, 100)
            .await;
        match runs.ok()? {
            0 => None,
            100.. => Some("99+".to_owned()),
            some => Some(some.to_string()),
        }
    }
}

fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" {
            path d="M3 2h10v3H6v2h7v7H3v-3h7V9H3z" {}
        }
    }
}

/// A field of a form; empty if it is not there.
pub fn field<'a>(form: &'a [(String, String)], name: &str) -> &'a str {
    let found = form.iter().find(|(of, _)| of == name);
    found.map_or("", |(_, value)| value)
}

/// What was done, after the redirect of a form. Nothing of the URL is shown.
pub fn flash(code: &str) -> Markup {
    let said = match code {
        "signalled" => "The signal is recorded. The agent sees it with its next workflow task.",
        "cancelled" => "Cancellation is requested. The agent can tidy up, and ends then.",
        "terminated" => "The session is terminated.",
        "paused" => {
            "The session is paused. Nothing of it is handed to workers until it is resumed."
        }
        "resumed" => "The session is resumed. It goes on where it was.",
        "revoked" => "The session is revoked: it has ended, and so has what it was given.",
        "reset" => "A new run began from that point. This is it.",
        "approved" => "Approved: the tool call goes on.",
        "counted" => "Your vote counts. More people have to approve.",
        "denied" => "Denied: the agent is told that the call was refused.",
        _ => return html! {},
    };
    html! { p.flash role="status" { (said) } }
}

/// The dot and word of a status.
pub fn badge(class: &str, word: &str) -> Markup {
    html! { span class={ "status " (class) } { (word) } }
}
