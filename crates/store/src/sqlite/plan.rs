//! Which index to read for a filter.
//!
//! SQLite would guess, without knowing the values, and either sorts half a million rows to show
//! twenty or walks past a million to find one. So we look: each condition that has an index is
//! asked for its first few thousand keys. If one has no more, those are read and sorted; otherwise
//! rows are read in the order in which they are shown, and most of them will match.

use rusqlite::{Connection, params_from_iter};

use super::connection::error;
use super::dialect::SqliteDialect;
use super::names::Namespace;
use super::visibility::space;
use crate::StoreError;
use crate::filter::sql::{Access, Parameter, Sql};
use crate::filter::{Attribute, Condition, Field, Filter, ValueType};

/// So many are few enough to look no further.
const VERY_FEW: i64 = 100;

/// How to find rows: the source, which calls them `v`, and what it does not check yet.
pub(super) struct Plan {
    pub(super) source: String,
    pub(super) conditions: Vec<String>,
}

/// What rows are read for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For the first few, in order.
    List,
    /// For all, in no order.
    Count,
}

/// Where rows are searched, and how.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) connection: &'a Connection,
    pub(super) namespace: &'a Namespace,
    /// So many keys are few.
    pub(super) few_keys: i64,
}

/// Decides how to find the rows of a filter.
pub(super) fn plan(
    search: Search<'_>,
    filter: &Filter,
    purpose: Purpose,
    sql: &mut Sql<'_>,
) -> Result<Plan, StoreError> {
    let namespace = search.namespace;
    let conjuncts = conjuncts(filter);
    let choice = choose(search, filter, &conjuncts, purpose)?;
    let in_space = in_space(sql, namespace, filter);
    let mut conditions = vec![in_space.clone()];
    for condition in &conjuncts {
        conditions.extend(sql.sort_hint(condition));
        conditions.push(if choice.leaves_index_to(condition) {
            sql.condition(condition)
        } else {
            sql.condition_without_index(condition)
        });
    }
    let source = match choice {
        Choice::Keys(condition) => format!(
            "({}) AS found CROSS JOIN visibility AS v ON v.run_key = found.run_key",
            sql.keys(condition, &in_space)
        ),
        Choice::Ordered(_) | Choice::NoneOf | Choice::LeftToSqlite => "visibility AS v".to_owned(),
    };
    Ok(Plan { source, conditions })
}

/// The condition whose index is read.
#[derive(Clone, Copy)]
enum Choice<'a> {
    /// Its keys first, and then their rows.
    Keys(&'a Condition),
    /// Its index, which has the rows in order.
    Ordered(&'a Condition),
    /// None: all rows, in order.
    NoneOf,
    LeftToSqlite,
}

impl Choice<'_> {
    fn leaves_index_to(self, condition: &Condition) -> bool {
        match self {
            Choice::Keys(_) | Choice::NoneOf => false,
            Choice::Ordered(chosen) => {
                // Status and type have an index together.
                let has_joint_index = |condition: &Condition| {
                    let field = attribute(condition).map(|attribute| &attribute.field);
                    matches!(field, Some(Field::ExecutionStatus | Field::WorkflowType))
                };
                std::ptr::eq(chosen, condition)
                    || (has_joint_index(chosen) && has_joint_index(condition))
            }
            Choice::LeftToSqlite => true,
        }
    }
}

fn choose<'a>(
    search: Search<'_>,
    filter: &Filter,
    conjuncts: &[&'a Condition],
    purpose: Purpose,
) -> Result<Choice<'a>, StoreError> {
    let dialect = SqliteDialect {
        namespace: search.namespace,
    };
    let candidates: Vec<_> = conjuncts
        .iter()
        .map(|condition| (*condition, Sql::new(&dialect).access(condition)))
        .filter(|(_, access)| *access != Access::None)
        .collect();
    match candidates.as_slice() {
        [] => return Ok(Choice::LeftToSqlite),
        [(condition, Access::Ordered)] => return Ok(Choice::Ordered(condition)),
        [(condition, _)] if purpose == Purpose::Count && conjuncts.len() == 1 => {
            return Ok(if has_index_elsewhere(condition) {
                Choice::Keys(condition)
            } else {
                Choice::LeftToSqlite
            });
        }
        _ => {}
    }
    let mut best: Option<(&Condition, Access, i64)> = None;
    for (condition, access) in candidates {
        let keys = count_keys(search, filter, condition)?;
        let is_better = match best {
            None => true,
            Some((_, Access::Keys, fewest)) if access == Access::Ordered => keys <= fewest,
            Some((_, _, fewest)) => keys < fewest,
        };
        if is_better {
            best = Some((condition, access, keys));
        }
        if keys <= VERY_FEW {
            break;
        }
    }
    Ok(match best {
        Some((condition, Access::Ordered, _)) => Choice::Ordered(condition),
        Some((condition, _, keys)) if keys <= search.few_keys => Choice::Keys(condition),
        _ if purpose == Purpose::Count => Choice::LeftToSqlite,
        _ => Choice::NoneOf,
    })
}

/// Whether a condition's index is of another table than visibility.
fn has_index_elsewhere(condition: &Condition) -> bool {
    attribute(condition).is_some_and(|attribute| match attribute.field {
        Field::WorkflowId | Field::RunId | Field::RootWorkflowId | Field::RootRunId => true,
        _ => matches!(
            attribute.value_type,
            ValueType::KeywordList | ValueType::Text
        ),
    })
}

/// How many keys a condition has, as far as it matters.
fn count_keys(
    search: Search<'_>,
    filter: &Filter,
    condition: &Condition,
) -> Result<i64, StoreError> {
    let Search {
        connection,
        namespace,
        few_keys,
    } = search;
    let dialect = SqliteDialect { namespace };
    let mut sql = Sql::new(&dialect);
    let in_space = in_space(&mut sql, namespace, filter);
    let keys = sql.keys(condition, &in_space);
    let limit = sql.bind(Parameter::Int(few_keys.saturating_add(1)));
    let text = format!("SELECT count(*) FROM (SELECT 1 FROM ({keys}) LIMIT {limit})");
    let mut statement = connection.prepare_cached(&text).map_err(error)?;
    statement
        .query_row(params_from_iter(sql.into_parameters()), |row| row.get(0))
        .map_err(error)
}

fn in_space(sql: &mut Sql<'_>, namespace: &Namespace, filter: &Filter) -> String {
    let own = sql.bind(Parameter::Int(space(namespace.key, false)));
    if filter.any_division() {
        let division = sql.bind(Parameter::Int(space(namespace.key, true)));
        format!("v.space IN ({own}, {division})")
    } else {
        format!("v.space = {own}")
    }
}

/// The conditions that all have to be true.
fn conjuncts(filter: &Filter) -> Vec<&Condition> {
    let mut conjuncts = Vec::new();
    let mut rest: Vec<_> = filter.condition().into_iter().collect();
    while let Some(condition) = rest.pop() {
        match condition {
            Condition::And(terms) => rest.extend(terms.iter().rev()),
            other => conjuncts.push(other),
        }
    }
    conjuncts
}

fn attribute(condition: &Condition) -> Option<&Attribute> {
    match condition {
        Condition::Compare { attribute, .. }
        | Condition::In { attribute, .. }
        | Condition::Between { attribute, .. }
        | Condition::StartsWith { attribute, .. }
        | Condition::IsNull { attribute, .. }
        | Condition::HasWords { attribute, .. } => Some(attribute),
        Condition::And(_) | Condition::Or(_) | Condition::Not(_) => None,
    }
}
