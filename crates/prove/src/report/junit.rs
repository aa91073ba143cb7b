//! JUnit's XML, as systems for continuous integration read it.

use std::fmt::Write;

use super::Report;
use crate::judge::Severity;

impl Report {
    /// A test case for each thing that was tried.
    pub fn to_junit(&self) -> String {
        let is_failed = |of: &&super::Tried| {
            of.findings
                .iter()
                .any(|of| of.severity == Severity::Failure)
        };
        let failures = self.tried.iter().filter(is_failed).count();
        let skipped = self
            .tried
            .iter()
            .filter(|of| !of.reached && !is_failed(of))
            .count();
        let name = escape(&format!("steadfast prove {}", self.workflow));
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let tests = self.tried.len();
        // Writing into a string does not fail.
        let _ = writeln!(
            out,
            "<testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" skipped=\"{skipped}\">"
        );
        for tried in &self.tried {
            let case = escape(&format!(
                "{}: {}",
                tried.point.boundary,
                tried.point.fault.name()
            ));
            let class = escape(&self.workflow);
            let _ = write!(
                out,
                "  <testcase classname=\"{class}\" name=\"{case}\" time=\"{:.3}\">",
                tried.seconds
            );
            for finding in &tried.findings {
                let (kind, detail) = (finding.kind.name(), escape(&finding.detail));
                let _ = match finding.severity {
                    Severity::Failure => {
                        let advice = escape(finding.kind.advice());
                        write!(
                            out,
                            "<failure type=\"{kind}\" message=\"{detail}\">{advice}</failure>"
                        )
                    }
                    Severity::Note => write!(out, "<system-out>{kind}: {detail}</system-out>"),
                };
            }
            if !tried.reached && !is_failed(&tried) {
                out.push_str("<skipped message=\"the run did not come to this place\"/>");
            }
            out.push_str("</testcase>\n");
        }
        out.push_str("</testsuite>\n");
        out
    }
}

/// Text as XML has it. Characters that it cannot have are left out.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(char),
            char if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') => {}
            char => out.push(char),
        }
    }
    out
}
