//! The schema that policies are validated against.

use std::sync::LazyLock;

use cedar_policy::Schema;

use crate::action;

/// Types and contexts. Actions are in `action.rs`.
///
/// Tags have one type for each entity type: so arguments are in several entities, by the type of their
/// values, each tagged by JSON Pointers.
const TYPES: &str = r#"
entity Group;
entity User, Service, Agent, Unauthenticated in [Group] = { method: String };
entity Server;
entity Namespace in [Server];
entity Tool in [Namespace];
entity Audience;
entity Workflow in [Namespace];
entity Session in [Namespace];
entity Numbers tags Long;
entity Decimals tags decimal;
entity Texts tags String;
entity Flags tags Bool;
entity Lists tags Set<String>;
entity Counts tags Long;
type Call = { workflow_id?: String, workflow_type?: String, task_queue?: String };
type Start = { attested: Bool, workflow_id?: String, workflow_type?: String, task_queue?: String };
type Exchange = {
  attempt: Long,
  initiator: String,
  initiator_method: String,
  namespace: String,
  scope: Set<String>,
  tool: String,
  workflow_id: String,
  workflow_type: String
};
"#;

/// What is known of every command.
const OF_COMMANDS: &str = r#"  attempt: Long,
  attested: Bool,
  children: Counts,
  decimals: Decimals,
  flags: Flags,
  initiator: String,
  initiator_method: String,
  lists: Lists,
  numbers: Numbers,
  opaque: Bool,
  session_age_seconds: Long,
  task_queue: String,
  texts: Texts,
  tool_calls: Counts,
  unmapped: Set<String>,
  workflow_id: String,
  workflow_type: String
"#;

/// Contexts of commands, with what is known of these only. Names are those of `Command::context_type`.
const COMMANDS: [(&str, &str); 4] = [
    ("ToolCall", ""),
    (
        "ChildStart",
        "  child_workflow_id: String,\n  terminates_running: Bool,\n",
    ),
    (
        "OutgoingSignal",
        "  children_only: Bool,\n  signal_name: String,\n",
    ),
    ("OutgoingCancel", "  children_only: Bool,\n"),
];

/// The schema, in the language of Cedar's schemas.
pub fn text() -> String {
    let contexts = COMMANDS.map(|(name, own)| format!("type {name} = {{\n{own}{OF_COMMANDS}}};\n"));
    let contexts = contexts.concat();
    let (types, actions) = (TYPES.trim_start(), action::declarations());
    format!("{types}{contexts}\n{actions}")
}

/// The schema. It is made once; that it is valid is tested.
pub(crate) fn schema() -> Option<&'static Schema> {
    static SCHEMA: LazyLock<Option<Schema>> =
        LazyLock::new(|| Schema::from_cedarschema_str(&text()).ok().map(|(of, _)| of));
    SCHEMA.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_valid_and_leaves_nothing_to_be_warned_of() {
        let text = text();
        let (_, warnings) = Schema::from_cedarschema_str(&text).expect("is valid");
        assert_eq!(warnings.count(), 0);
        assert!(schema().is_some());
    }
}
