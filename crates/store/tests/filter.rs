//! What filters are refused, and in which words: those of Temporal's server.

use proptest::prelude::*;
use steadfast_store::filter::{AttributeTypes, Filter};

fn types() -> AttributeTypes {
    AttributeTypes::new([
        ("CustText", 1),
        ("CustKw", 2),
        ("CustInt", 3),
        ("CustDbl", 4),
        ("CustBool", 5),
        ("CustDt", 6),
        ("CustList", 7),
    ])
}

#[test]
fn refusals_read_as_temporals() {
    for (text, expected) in [
        ("Foo = 'x'", "invalid search attribute: Foo"),
        ("workflowid = 'a'", "invalid search attribute: workflowid"),
        ("NamespaceId = 'x'", "invalid search attribute: NamespaceId"),
        ("Custom.Attr = 'x'", "invalid search attribute: Custom.Attr"),
        ("`Foo Bar` = 'x'", "invalid search attribute: Foo Bar"),
        (
            "foo bar",
            "malformed SQL query: syntax error at position 35 near 'bar'",
        ),
        (
            "WorkflowId = 'a' AND",
            "malformed SQL query: syntax error at position 48",
        ),
        (
            "(WorkflowId = 'a'",
            "malformed SQL query: syntax error at position 45",
        ),
        (
            "WorkflowId IN 'a'",
            "malformed SQL query: syntax error at position 45 near 'a'",
        ),
        (
            "WorkflowId IN ()",
            "malformed SQL query: syntax error at position 44",
        ),
        (
            "WorkflowId == 'a'",
            "malformed SQL query: syntax error at position 41",
        ),
        ("WorkflowId", "invalid expression: incomplete expression"),
        (
            "WorkflowId = abc",
            "operation is not supported: column name on the right side of comparison expression \
             (did you forget to quote \"abc\"?)",
        ),
        (
            "StartTime = CloseTime",
            "operation is not supported: column name on the right side of comparison expression \
             (did you forget to quote \"CloseTime\"?)",
        ),
        (
            "WorkflowId = 'a' LIMIT 5",
            "operation is not supported: 'LIMIT' clause",
        ),
        (
            "GROUP BY WorkflowType",
            "operation is not supported: 'GROUP BY' clause is not supported for search attribute \
             WorkflowType",
        ),
        (
            "GROUP BY ExecutionStatus, WorkflowType",
            "operation is not supported: 'GROUP BY' clause supports only a single field",
        ),
        (
            "order by CustText",
            "operation is not supported: unable to sort by search attribute type Text",
        ),
        (
            "WorkflowId LIKE 'a%'",
            "operation is not supported: operator 'LIKE' not supported for Keyword type search \
             attribute 'WorkflowId'",
        ),
        (
            "WorkflowId <=> 'a'",
            "operation is not supported: operator '<=>' not supported for Keyword type search \
             attribute 'WorkflowId'",
        ),
        (
            "CustList < 'x'",
            "operation is not supported: operator '<' not supported for KeywordList type search \
             attribute 'CustList'",
        ),
        (
            "CustList STARTS_WITH 'x'",
            "operation is not supported: operator 'STARTS_WITH' not supported for KeywordList \
             type search attribute 'CustList'",
        ),
        (
            "CustText IN ('a','b')",
            "operation is not supported: operator 'IN' not supported for Text type search \
             attribute 'CustText'",
        ),
        (
            "CustText = ''",
            "invalid expression: no tokens found filtering on Text type search attribute CustText",
        ),
        (
            "CustInt = 'x'",
            "invalid expression: invalid value type for search attribute CustInt of type Int: \
             \"x\" (type: string)",
        ),
        (
            "CustInt STARTS_WITH 'a'",
            "invalid expression: invalid value type for search attribute CustInt of type Int: \
             \"a\" (type: string)",
        ),
        (
            "CustBool = 1",
            "invalid expression: invalid value type for search attribute CustBool of type Bool: 1 \
             (type: int64)",
        ),
        (
            "CustKw = true",
            "invalid expression: invalid value type for search attribute CustKw of type Keyword: \
             true (type: bool)",
        ),
        (
            "WorkflowId = -5",
            "invalid expression: invalid value type for search attribute WorkflowId of type \
             Keyword: -5 (type: int64)",
        ),
        (
            "StartTime > 'yesterday'",
            "invalid expression: unable to parse datetime 'yesterday'",
        ),
        (
            "CustDt > '2020-01-01'",
            "invalid expression: unable to parse datetime '2020-01-01'",
        ),
        (
            "StartTime > 1.5",
            "invalid expression: invalid value type for search attribute StartTime of type \
             Datetime: 1.5 (type: float64)",
        ),
        (
            "ExecutionStatus = 'Foo'",
            "invalid expression: invalid ExecutionStatus value 'Foo'",
        ),
        (
            "ExecutionStatus = 99",
            "invalid expression: invalid ExecutionStatus value 99",
        ),
        (
            "ExecutionStatus STARTS_WITH 'Run'",
            "invalid expression: invalid ExecutionStatus value 'Run'",
        ),
        (
            "ExecutionDuration > 'abc'",
            "invalid expression: invalid duration value for search attribute ExecutionDuration: \
             abc",
        ),
        (
            "ExecutionDuration > 1.5",
            "invalid expression: unexpected value type float64 for search attribute \
             ExecutionDuration",
        ),
        (
            "CustBool BETWEEN true AND false",
            "invalid expression: cannot do range condition on search attribute 'CustBool' of type \
             Bool",
        ),
        (
            "WorkflowId IS TRUE",
            "invalid expression: 'IS' operator can only be used as 'IS NULL' or 'IS NOT NULL'",
        ),
        (
            "WorkflowId = NULL",
            "invalid expression: unexpected value type *sqlparser.NullVal",
        ),
        (
            "CustInt = 1+2",
            "invalid expression: unexpected value type *sqlparser.BinaryExpr",
        ),
        (
            "1 = 1",
            "invalid expression: must be a column name but was *sqlparser.SQLVal",
        ),
        (
            "lower(WorkflowId) = 'a'",
            "invalid expression: must be a column name but was *sqlparser.FuncExpr",
        ),
        (
            "WorkflowId = lower('a')",
            "operation is not supported: nested func",
        ),
        (
            "CustKw = 0x10",
            "invalid expression: unable to parse value \"0x10\"",
        ),
    ] {
        let error = Filter::parse(text, &types()).expect_err(text);
        assert_eq!(
            error.to_string(),
            format!("invalid query: {expected}"),
            "{text}"
        );
    }
}

#[test]
fn words_of_the_language_are_in_any_case() {
    for text in [
        "CustKw = 'a' and not CustInt in (1, -2.5) or CustDt is not null",
        "custkw STARTS_WITH 'a'",
        "CustKw starts_with 'a' AND CustKw Not Starts_With 'b'",
        "CustInt between 1 and 2 And CustInt NOT between 3 AND 4",
        "CustKw <> 'a' && CustKw != 'b' || CustKw = \"c\"",
        "  CustKw = 'a' ;",
        "group by ExecutionStatus",
        "CustKw = 'a' GROUP BY `ExecutionStatus`",
        "order by CustInt desc, CustKw",
        "CustInt = .5 OR CustDbl = 1e-3",
        "((CustKw = ('a')))",
        "CustDt > 1700000000000000000",
        "",
        " \t\n",
    ] {
        let text = text.replace("custkw", "CustKw");
        assert!(Filter::parse(&text, &types()).is_ok(), "{text}");
    }
}

#[test]
fn length_and_depth_have_an_end() {
    let many = vec!["CustKw = 'a'"; 5_000].join(" OR ");
    assert!(Filter::parse(&many, &types()).is_ok());
    let deep = format!("{}CustKw = 'a'{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(Filter::parse(&deep, &types()).is_err());
    let deep = format!("{}CustKw = 'a'", "NOT ".repeat(100_000));
    assert!(Filter::parse(&deep, &types()).is_err());
    let deep = format!("CustInt = {}1", "-".repeat(100_000));
    assert!(Filter::parse(&deep, &types()).is_err());
    let deep = format!("{}CustKw = 'a'{}", "(".repeat(100), ")".repeat(100));
    assert!(Filter::parse(&deep, &types()).is_ok());
}

/// Pieces of filters, so that what is joined from them gets past the first word.
const PIECES: &[&str] = &[
    "WorkflowId",
    "CustKw",
    "CustInt",
    "CustText",
    "CustList",
    "CustDt",
    "CustBool",
    "ExecutionStatus",
    "StartTime",
    "CloseTime",
    "ExecutionDuration",
    "Nothing",
    "`CustKw`",
    "'a'",
    "'it''s'",
    "'Running'",
    "'2020-01-01T00:00:00Z'",
    "'5m'",
    "''",
    "\"b\"",
    "1",
    "-1",
    "1.5",
    "1e300",
    "99999999999999999999",
    "true",
    "null",
    "=",
    "!=",
    "<",
    ">=",
    "<=>",
    "IN",
    "NOT",
    "BETWEEN",
    "AND",
    "OR",
    "IS",
    "LIKE",
    "STARTS_WITH",
    "ORDER BY",
    "GROUP BY",
    "DESC",
    "LIMIT",
    "(",
    ")",
    ",",
    ".",
    "-",
    "+",
    ";",
    "f(",
    "'",
    "`",
    "\\",
    "ä",
    "💚",
];

proptest! {
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        let _ = Filter::parse(&text, &types());
    }

    #[test]
    fn any_pieces_are_answered(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..30),
        separator in prop::sample::select(&["", " "][..]),
    ) {
        let _ = Filter::parse(&pieces.join(separator), &types());
    }

    #[test]
    fn any_string_is_a_value(value in any::<String>()) {
        let escaped = value.replace('\\', "\\\\").replace('\'', "''");
        let filter = Filter::parse(&format!("CustKw = '{escaped}'"), &types());
        prop_assert!(filter.is_ok(), "{:?}", filter);
    }
}
