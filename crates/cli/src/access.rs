//! `steadfast access`: who may call what, and what is granted and not used.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::evidence::client::Server;

/// Names that are shown of a list.
const MAX_NAMES: usize = 8;

/// Show live sessions and principals: who started a session, as whom it runs, what it may call and has called,
/// which credentials it holds until when, what it waits for.
#[derive(Args)]
pub struct Access {
    #[command(flatten)]
    server: Server,
    /// The namespace; all of them if it is not given.
    #[arg(long, short = 'n', value_name = "NAME")]
    namespace: Option<String>,
    /// Of one principal: whoever started sessions, or an agent as NAMESPACE/WORKFLOW-TYPE.
    #[arg(long, value_name = "NAME", conflicts_with = "unused")]
    principal: Option<String>,
    /// Of one workflow, in detail.
    #[arg(long, short, value_name = "ID", conflicts_with = "unused")]
    workflow_id: Option<String>,
    /// At most so many sessions.
    #[arg(long, value_name = "N", conflicts_with = "unused")]
    limit: Option<usize>,
    /// What workflow types may call, and have not called in a time.
    #[arg(long)]
    unused: bool,
    /// From this time on (RFC 3339); 30 days before its end if it is not given.
    #[arg(long, value_name = "TIME", requires = "unused")]
    from: Option<String>,
    /// Until before this time; until now if it is not given.
    #[arg(long, value_name = "TIME", requires = "unused")]
    to: Option<String>,
    /// Sessions of each workflow type whose histories are read.
    #[arg(long, value_name = "N", requires = "unused")]
    sample: Option<usize>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

impl Access {
    /// Shows it.
    pub fn run(self) -> Result<ExitCode, String> {
        let path = match self.unused {
            true => "/api/v1/access/unused",
            false => "/api/v1/access",
        };
        let number = |of: Option<usize>| of.map(|of| of.to_string());
        let given = [
            ("namespace", self.namespace.clone()),
            ("principal", self.principal.clone()),
            ("workflow_id", self.workflow_id.clone()),
            ("limit", number(self.limit)),
            ("from", self.from.clone()),
            ("to", self.to.clone()),
            ("sample", number(self.sample)),
        ];
        let given = given.iter();
        let query: Vec<(&str, &str)> = given
            .filter_map(|(name, of)| Some((*name, of.as_deref()?)))
            .collect();
        let answer = self.server.search_json(path, &query)?;
        match (self.json, self.unused, &self.workflow_id) {
            (true, _, _) => println!("{answer:#}"),
            (_, true, _) => print!("{}", unused(&answer)),
            (_, _, Some(_)) => print!("{}", details(&answer)),
            (_, _, None) => print!("{}", sessions(&answer)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn sessions(answer: &Value) -> String {
    let rows = items(&answer["sessions"]).map(|of| {
        [
            clean(&of["namespace"]),
            match of["paused"].is_string() {
                true => format!("{} (paused)", clean(&of["workflowId"])),
                false => clean(&of["workflowId"]),
            },
            clean(&of["workflowType"]),
            clean(&of["initiator"]["name"]),
            second(&of["started"]),
            names(calls(of, |call| call["calls"] != 0)),
            names(calls(of, |call| {
                call["may"] != "deny" && call["calls"] == 0
            })),
            held(
                items(&of["credentials"]).count(),
                latest(&of["credentials"]),
            ),
            items(&of["waiting"]).count().to_string(),
        ]
    });
    let heads = [
        "NAMESPACE",
        "SESSION",
        "RUNS AS",
        "STARTED BY",
        "STARTED",
        "HAS CALLED",
        "MAY CALL, TOO",
        "CREDENTIALS",
        "WAITING",
    ];
    let mut text = table(heads, rows);
    let rows = items(&answer["principals"]).map(|of| {
        let count = of["credentials"].as_u64().unwrap_or(0);
        [
            clean(&of["name"]),
            clean(&of["type"]),
            number(&of["sessions"]),
            names(items(&of["called"]).map(clean)),
            names(items(&of["mayCall"]).map(clean)),
            held(
                usize::try_from(count).unwrap_or(usize::MAX),
                second(&of["credentialsUntil"]),
            ),
            number(&of["waiting"]),
        ]
    });
    let heads = [
        "PRINCIPAL",
        "BY",
        "SESSIONS",
        "HAS CALLED",
        "MAY CALL",
        "CREDENTIALS",
        "WAITING",
    ];
    text += "\n";
    text += &table(heads, rows);
    text += &end(answer);
    text
}

fn details(answer: &Value) -> String {
    let mut text = String::new();
    for of in items(&answer["sessions"]) {
        text += &format!(
            "{} of {} in {}, run {}\n  started by {} ({}) at {}\n",
            clean(&of["workflowId"]),
            clean(&of["workflowType"]),
            clean(&of["namespace"]),
            clean(&of["runId"]),
            clean(&of["initiator"]["name"]),
            clean(&of["initiator"]["type"]),
            second(&of["started"]),
        );
        if of["paused"].is_string() {
            text += &format!("  paused since {}\n", second(&of["paused"]));
        }
        if of["parent"].is_object() {
            text += &format!("  child of {}\n", clean(&of["parent"]["workflowId"]));
        }
        for credential in items(&of["credentials"]) {
            text += &format!(
                "  holds {} for {} until {}\n",
                clean(&credential["id"]),
                clean(&credential["audience"]),
                second(&credential["expires"]),
            );
        }
        for call in items(&of["waiting"]) {
            text += &format!(
                "  waits for the approval of {} until {}\n",
                clean(&call["name"]),
                second(&call["expires"]),
            );
        }
        text += "\n";
        text += &calls_table(&of["calls"]);
    }
    text + &end(answer)
}

fn unused(answer: &Value) -> String {
    let mut text = String::new();
    for of in items(&answer["types"]) {
        text += &format!(
            "{} in {}: {} sessions, {} read; {} of {} that it may call were not called\n",
            clean(&of["workflowType"]),
            clean(&of["namespace"]),
            of["sessions"],
            of["read"],
            items(&of["unused"]).count(),
            items(&of["unused"]).count() + items(&of["used"]).count(),
        );
        text += &calls_table(&of["unused"]);
        text += "\n";
    }
    text + &format!(
        "from {} to {}{}",
        second(&answer["from"]),
        second(&answer["to"]),
        end(answer)
    )
}

fn calls_table(calls: &Value) -> String {
    let rows = items(calls).map(|of| {
        let by = names(items(&of["policies"]).map(clean));
        let arguments = names(items(&of["byArguments"]).map(clean));
        [
            format!("  {}", clean(&of["name"])),
            clean(&of["kind"]),
            clean(&of["may"]),
            match arguments.is_empty() {
                true => by,
                false => format!("{by}; by the arguments: {arguments}"),
            },
            number(&of["calls"]),
            number(&of["refused"]),
        ]
    });
    let rows: Vec<_> = rows.collect();
    match rows.is_empty() {
        true => String::new(),
        false => table(
            ["  CALL", "KIND", "MAY", "BY", "CALLS", "REFUSED"],
            rows.into_iter(),
        ),
    }
}

/// What is below a table.
fn end(answer: &Value) -> String {
    let mut text = String::new();
    if answer["policies"].is_null() {
        text += "\nno policies are in force: everything may be called\n";
    }
    match answer["more"].as_u64() {
        None | Some(0) => {}
        Some(more) => text += &format!("\n{more} more sessions live: --limit\n"),
    }
    if answer["isComplete"] != true {
        text += "\nnot everything could be looked at\n";
    }
    match text.is_empty() {
        true => "\n".to_owned(),
        false => text,
    }
}

fn calls<'a>(
    session: &'a Value,
    which: impl Fn(&Value) -> bool + 'a,
) -> impl Iterator<Item = String> + 'a {
    let calls = items(&session["calls"]).filter(move |of| which(of));
    calls.map(|of| clean(&of["name"]))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(String::new, |of| of.to_string())
}

/// What agents and callers write cannot move the cursor.
fn clean(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_default()
        .escape_debug()
        .to_string()
}

fn second(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    match text.get(..19) {
        Some(whole) => format!("{whole}Z"),
        None => clean(value),
    }
}

fn latest(credentials: &Value) -> String {
    let expire = items(credentials).map(|of| second(&of["expires"]));
    expire.max().unwrap_or_default()
}

fn held(count: usize, until: String) -> String {
    match count {
        0 => "0".to_owned(),
        _ => format!("{count} until {until}"),
    }
}

fn names(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let shown = names.iter().take(MAX_NAMES).map(String::as_str);
    let shown = shown.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn table<const N: usize>(heads: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(heads.map(str::to_owned))
        .chain(rows)
        .collect();
    let width = |column: usize| rows.iter().map(|of| of[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_shows_who_may_do_what() {
        let call = |name: &str, may: &str, calls: u64| {
            json!({"kind": "tool", "name": name, "may": may, "policies": ["all"], "byArguments": [],
                "calls": calls, "refused": 0})
        };
        let answer = json!({
            "policies": "abc",
            "sessions": [{
                "namespace": "default", "workflowId": "one\u{1b}[2J", "workflowType": "Agent",
                "initiator": {"name": "alice", "type": "oidc"},
                "started": "2026-11-24T10:00:00.000000000Z",
                "calls": [call("look_up", "allow", 2), call("refund", "approval", 0), call("delete", "deny", 0)],
                "credentials": [{"expires": "2026-11-24T10:15:00.000000000Z"}],
                "waiting": [],
            }],
            "principals": [{"name": "alice", "type": "oidc", "sessions": 1, "called": ["look_up"],
                "mayCall": ["look_up", "refund"], "credentials": 0, "credentialsUntil": null, "waiting": 0}],
            "more": 3,
            "isComplete": false,
        });
        let text = sessions(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "default    one\\u{1b}[2J  Agent    alice       2026-11-24T10:00:00Z  look_up     refund         \
             1 until 2026-11-24T10:15:00Z  0"
        );
        assert!(
            text.contains(
                "alice      oidc  1         look_up     look_up, refund  0            0\n"
            )
        );
        assert!(text.contains("3 more sessions live"));
    }
}
