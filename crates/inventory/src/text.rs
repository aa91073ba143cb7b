//! For a terminal.

use std::fmt;

use crate::inventory::{Found, Inventory};
use crate::risk::Risk;

/// Tools that are shown.
const MAX_TOOLS: usize = 20;

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.types.is_empty() {
            return writeln!(f, "no sessions in {}", shown(&self.namespace));
        }
        let rows: Vec<[String; 6]> = self
            .types
            .iter()
            .map(|of| {
                [
                    format!("{:.1}", of.score),
                    shown(&of.workflow_type),
                    format!("{} of {}", of.live, of.listed),
                    of.read.to_string(),
                    of.proven
                        .as_ref()
                        .map_or("never", |of| day(&of.at))
                        .to_owned(),
                    summary(&of.risks),
                ]
            })
            .collect();
        let heads = [
            "SCORE",
            "WORKFLOW TYPE",
            "LIVE",
            "READ",
            "PROVEN",
            "WHAT WAS FOUND",
        ];
        table(f, heads, &rows)?;
        if !self.tools.is_empty() {
            writeln!(f)?;
            let rows: Vec<[String; 5]> = self
                .tools
                .iter()
                .take(MAX_TOOLS)
                .map(|of| {
                    [
                        format!("{:.1}", of.score),
                        shown(&of.tool),
                        shown(&of.workflow_type),
                        of.calls.to_string(),
                        summary(&of.risks),
                    ]
                })
                .collect();
            let heads = ["SCORE", "TOOL", "CALLED BY", "CALLS", "WHAT WAS FOUND"];
            table(f, heads, &rows)?;
        }
        writeln!(f)?;
        self.explain(f)?;
        writeln!(
            f,
            "{} sessions, the histories of {} read, at most {} of each type{}",
            self.listed,
            self.read,
            self.sample,
            match self.is_complete {
                true => "",
                false => "; there are more than could be looked through",
            }
        )
    }
}

impl Inventory {
    /// The risks that were found, the worst first.
    pub(crate) fn risks(&self) -> Vec<Risk> {
        let risks = self.types.iter().flat_map(|of| &of.risks);
        let mut risks: Vec<Risk> = risks.map(|of| of.risk).collect();
        risks.sort_by_key(|of| (of.effect(), *of));
        risks.dedup();
        risks
    }

    fn explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for risk in self.risks() {
            writeln!(
                f,
                "{} ({}): {}",
                risk.name(),
                risk.effect().name(),
                risk.advice()
            )?;
            let with_detail = self.types.iter().find_map(|of| {
                let is_it = |found: &&Found| found.risk == risk && found.example.is_some();
                of.risks.iter().find(is_it)
            });
            if let Some((found, example)) =
                with_detail.and_then(|of| Some((of, of.example.as_ref()?)))
            {
                let id = shown(&example.workflow_id);
                writeln!(f, "    such as in {id}: {}", shown(&found.detail))?;
            }
        }
        writeln!(f)
    }
}

/// The risks on a line. Each is named once, with the runs in which it was found.
pub(crate) fn summary(risks: &[Found]) -> String {
    let mut parts: Vec<(Risk, u64)> = Vec::new();
    for found in risks {
        match parts.iter_mut().find(|(risk, _)| *risk == found.risk) {
            Some((_, runs)) => *runs = (*runs).max(found.runs),
            None => parts.push((found.risk, found.runs)),
        }
    }
    // The column beside says it.
    parts.retain(|(risk, _)| *risk != Risk::NeverProven);
    match parts.is_empty() {
        true => "nothing".to_owned(),
        false => {
            let parts = parts
                .iter()
                .map(|(risk, runs)| format!("{} ({runs})", risk.name()));
            parts.collect::<Vec<_>>().join(", ")
        }
    }
}

/// The day of a time in RFC 3339.
pub(crate) fn day(at: &str) -> &str {
    at.get(..10).unwrap_or(at)
}

/// What others wrote cannot move the cursor.
fn shown(text: &str) -> String {
    text.escape_debug().to_string()
}

fn table<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    heads: [&str; N],
    rows: &[[String; N]],
) -> fmt::Result {
    let mut widths = heads.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heads = heads.map(str::to_owned);
    for row in std::iter::once(&heads).chain(rows) {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}
