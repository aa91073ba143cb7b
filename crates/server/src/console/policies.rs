//! The policies in force, as they are written.

use axum::extract::Path;
use axum::response::Response;
use maud::html;

use super::page::{Fault, Page, Section};
use super::{Visit, text};

/// Most characters of one file.
const MAX_TEXT: usize = 200_000;

/// The page.
pub async fn page(visit: Visit, Path(namespace): Path<String>) -> Response {
    let page = make(&visit);
    visit.answer(&namespace, Section::Policies, page).await
}

fn make(visit: &Visit) -> Result<Page, Fault> {
    visit.admit("GetStatus", "")?;
    let policies = visit.caller.policies().get();
    let hash = policies.as_ref().map(|of| of.hash());
    let hash: String = hash
        .iter()
        .flatten()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(Page {
        section: Section::Policies,
        title: "Policies".into(),
        live: false,
        body: html! {
            div.heading { h1 { "Policies" } }
            @match policies {
                None => {
                    div.empty {
                        p { "No policies are in force: every tool call goes on." }
                        p { "Start the server with " code { "--policy DIR" } ", or set " code { "[policy] path" } "." }
                    }
                },
                Some(policies) => {
                    p { "What no policy permits is refused. A " code { "forbid" } " with " code { "@approval(\"required\")" } " makes a tool call wait for people. "
                        "Each decision names the policies that made it, and this hash." }
                    dl.facts {
                        div { dt { "SHA-256 in force" } dd.code { (hash) } }
                        div { dt { "Policies" } dd { (policies.ids().len()) } }
                        @if !visit.caller.is_authenticated() { div { dt { "Calls of the API" } dd { "not governed: nobody is authenticated" } } }
                    }
                    ul.tags aria-label="Ids" { @for id in policies.ids() { li.policy { (text::name(&id)) } } }
                    @for source in policies.sources() {
                        section.source {
                            h2 { (text::name(&source.name)) }
                            pre.payload tabindex="0" { (text::prose(&source.text, MAX_TEXT)) }
                        }
                    }
                },
            }
        },
    })
}
