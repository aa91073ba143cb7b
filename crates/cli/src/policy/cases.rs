//! `steadfast policy test`: a table of calls with what policies are to decide about them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use steadfast_policy::{Argument, Arguments, Decision, Policies};
use steadfast_server::governance::load;

use super::question::{Kind, Question, What};
use super::{answer, as_json};

/// A table of cases.
#[derive(Args)]
pub struct Test {
    /// The cases: TOML, or JSON if its name ends with `.json`.
    file: PathBuf,
    /// The policies, in place of those that the file names.
    #[arg(long, value_name = "PATH")]
    policies: Option<PathBuf>,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// A file or directory, seen from the file of the cases.
    policies: Option<PathBuf>,
    #[serde(default)]
    case: Vec<Case>,
}

/// One case: a call of the API, or a command of an agent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: Option<String>,
    /// `allow`, `deny` or `approval`.
    expect: Expected,
    /// Exactly these policies decide, if they are given.
    policies: Option<Vec<String>>,
    action: Option<String>,
    tool: Option<String>,
    /// For whom the tool's credential is to be exchanged.
    audience: Option<String>,
    #[serde(default)]
    scope: Vec<String>,
    child: Option<String>,
    signal: Option<String>,
    cancel: Option<String>,
    local_tool: Option<String>,
    continue_as: Option<String>,
    #[serde(default)]
    child_workflow_id: String,
    /// Workflow id of the receiver of a signal.
    #[serde(default)]
    to: String,
    #[serde(default)]
    children_only: bool,
    #[serde(default)]
    terminates_running: bool,
    #[serde(default)]
    principal: Who,
    #[serde(default = "default_namespace")]
    namespace: String,
    #[serde(default)]
    workflow_id: String,
    #[serde(default)]
    workflow_type: String,
    #[serde(default)]
    task_queue: String,
    #[serde(default)]
    initiator: String,
    #[serde(default)]
    initiator_method: String,
    #[serde(default)]
    arguments: Vec<Value>,
    /// The arguments cannot be read.
    #[serde(default)]
    opaque: bool,
    #[serde(default)]
    tool_calls: std::collections::BTreeMap<String, i64>,
    #[serde(default)]
    children: std::collections::BTreeMap<String, i64>,
    #[serde(default)]
    session_age_seconds: i64,
    #[serde(default = "first")]
    attempt: i64,
    #[serde(default)]
    attested: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Deny,
    Approval,
}

/// Who calls. Of a command it is the session.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Who {
    kind: Option<Kind>,
    id: String,
    groups: Vec<String>,
    method: Option<String>,
}

fn default_namespace() -> String {
    "default".to_owned()
}

fn first() -> i64 {
    1
}

impl Expected {
    fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Approval => "approval",
        }
    }
}

impl Test {
    /// Ends with 1 if something was decided otherwise.
    pub fn run(self) -> Result<ExitCode, String> {
        let table = Table::read(&self.file)?;
        let beside = self.file.parent().unwrap_or(Path::new(""));
        let named = table.policies.map(|path| beside.join(path));
        let path = self.policies.or(named).ok_or(
            "say which policies are meant: `policies = \"PATH\"` in the file, or --policies",
        )?;
        let (_, policies) = load(&path)?;
        if table.case.is_empty() {
            return Err(format!("{}: there is no case", self.file.display()));
        }
        let mut results = Vec::new();
        for (number, case) in (1..).zip(&table.case) {
            let name = case.title(number);
            let result = case.decide(&policies);
            let decision = result.map_err(|error| format!("{name}: {error}"))?;
            results.push((name, case, decision));
        }
        let failed = results.iter().filter(|of| !of.1.is_met(&of.2)).count();
        match self.json {
            true => print_json(&results, failed),
            false => print(&results, failed),
        }
        Ok(match failed {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    }
}

impl Table {
    fn read(path: &Path) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
        match path.extension().is_some_and(|of| of == "json") {
            true => serde_json::from_str(&text).map_err(|error| failed(&error)),
            false => toml::from_str(&text).map_err(|error| failed(&error)),
        }
    }
}

impl Case {
    fn title(&self, number: usize) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let what = self.what();
        let commands = [
            ("tool", what.tool),
            ("child", what.child),
            ("signal", what.signal),
            ("cancel", what.cancel),
            ("local tool", what.local_tool),
            ("continue as", what.continue_as),
        ];
        let mut given = commands
            .iter()
            .filter_map(|(kind, name)| Some((kind, (*name)?)));
        match (what.action, given.next()) {
            (Some(action), _) => format!("{number}: {action} by {:?}", self.principal.id),
            (None, Some((kind, name))) => format!("{number}: {kind} {name:?}"),
            (None, None) => format!("{number}: nothing"),
        }
    }

    fn what(&self) -> What<'_> {
        What {
            action: self.action.as_deref(),
            tool: self.tool.as_deref(),
            child: self.child.as_deref(),
            signal: self.signal.as_deref(),
            cancel: self.cancel.as_deref(),
            local_tool: self.local_tool.as_deref(),
            continue_as: self.continue_as.as_deref(),
        }
    }

    fn decide(&self, policies: &Policies) -> Result<Decision, String> {
        let arguments = self.arguments.iter().cloned().map(Argument::Json);
        let opaque = self.opaque.then_some(Argument::Opaque);
        Question {
            what: self.what(),
            audience: self.audience.as_deref(),
            scope: &self.scope,
            child_workflow_id: &self.child_workflow_id,
            to: &self.to,
            children_only: self.children_only,
            terminates_running: self.terminates_running,
            kind: self.principal.kind,
            principal: &self.principal.id,
            groups: &self.principal.groups,
            method: self.principal.method.as_deref(),
            namespace: &self.namespace,
            workflow_id: &self.workflow_id,
            workflow_type: &self.workflow_type,
            task_queue: &self.task_queue,
            initiator: &self.initiator,
            initiator_method: &self.initiator_method,
            attempt: self.attempt,
            attested: self.attested,
            session_age_seconds: self.session_age_seconds,
            tool_calls: self.tool_calls.clone(),
            children: self.children.clone(),
            arguments: Arguments::new(arguments.chain(opaque)),
        }
        .ask(policies)
    }

    fn is_met(&self, decision: &Decision) -> bool {
        let by_those = self.policies.as_ref().is_none_or(|expected| {
            let mut expected = expected.clone();
            expected.sort_unstable();
            expected == decision.policies
        });
        answer(decision) == self.expect.name() && by_those
    }
}

type Outcome<'a> = (String, &'a Case, Decision);

fn print(results: &[Outcome<'_>], failed: usize) {
    for (name, case, decision) in results {
        if case.is_met(decision) {
            println!("ok      {name}");
            continue;
        }
        println!("FAILED  {name}");
        println!(
            "  expected: {}",
            told(case.expect.name(), case.policies.as_deref())
        );
        println!(
            "  decided:  {}",
            told(answer(decision), Some(&decision.policies))
        );
        for error in &decision.errors {
            println!("  error:    {error}");
        }
    }
    let passed = results.len() - failed;
    println!("{passed} ok, {failed} failed");
}

fn told(answer: &str, policies: Option<&[String]>) -> String {
    match policies {
        None => answer.to_owned(),
        Some([]) => format!("{answer}, by no policy"),
        Some(policies) => format!("{answer}, by {}", policies.join(", ")),
    }
}

fn print_json(results: &[Outcome<'_>], failed: usize) {
    let cases = results.iter().map(|(name, case, decision)| {
        let mut value = as_json(decision);
        value["name"] = name.as_str().into();
        value["expected"] = case.expect.name().into();
        value["expectedPolicies"] = case.policies.clone().into();
        value["ok"] = case.is_met(decision).into();
        value
    });
    let cases: Vec<Value> = cases.collect();
    println!("{}", json!({ "failed": failed, "cases": cases }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_policy::starter;

    const CASES: &str = r#"
        [[case]]
        name = "operators start"
        principal = { kind = "user", id = "ann", groups = ["operator"] }
        action = "StartWorkflowExecution"
        expect = "allow"
        policies = ["operator"]

        [[case]]
        principal = { id = "w", groups = ["worker"] }
        action = "TerminateWorkflowExecution"
        expect = "deny"

        [[case]]
        tool = "refund"
        workflow_type = "Agent"
        arguments = [{ amount = 5 }]
        expect = "allow"
        policies = ["agents"]

        [[case]]
        child = "Worker"
        children = { Worker = 3 }
        expect = "allow"

        [[case]]
        signal = "stop"
        to = "order-7"
        expect = "allow"
    "#;

    #[test]
    fn cases_are_met_or_not() {
        let policies = starter::policies().expect("are valid");
        let mut table: Table = toml::from_str(CASES).expect("is read");
        let decide = |of: &Case| of.decide(&policies).expect("is decided");
        assert!(table.case.iter().all(|of| of.is_met(&decide(of))));
        assert_eq!(
            table.case[1].title(2),
            "2: TerminateWorkflowExecution by \"w\""
        );
        table.case[0].policies = Some(vec!["admin".into()]);
        table.case[1].expect = Expected::Allow;
        table.case[2].expect = Expected::Approval;
        table.case[3].expect = Expected::Deny;
        table.case[4].expect = Expected::Deny;
        assert!(!table.case.iter().any(|of| of.is_met(&decide(of))));
        assert_eq!(table.case[4].title(5), "5: signal \"stop\"");
        table.case[4].cancel = Some("order-7".into());
        assert!(table.case[4].decide(&policies).is_err(), "two commands");
        table.case.truncate(4);
        table.case[2].action = Some("QueryWorkflow".into());
        assert!(table.case[2].decide(&policies).is_err(), "both");
        table.case[1].action = Some("Nothing".into());
        assert!(table.case[1].decide(&policies).is_err(), "no such action");
    }

    #[test]
    fn what_is_misspelt_is_refused() {
        for text in [
            "[[case]]\nexpects = \"allow\"",
            "[[case]]\nexpect = \"yes\"",
            "[[case]]\nexpect = \"allow\"\nprincipal = { group = [\"x\"] }",
            "[[cases]]\nexpect = \"allow\"",
        ] {
            assert!(toml::from_str::<Table>(text).is_err(), "{text}");
        }
    }
}
