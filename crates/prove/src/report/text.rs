//! For a terminal.

use std::fmt;

use super::{Report, Verdict};

/// Characters of a line.
const WIDTH: usize = 100;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.grid(f)?;
        self.explain(f)?;
        let runs = self.tried.len();
        let tried = match runs == self.points {
            true => format!("{runs} runs, all that there is to try"),
            false => format!(
                "{runs} of {} runs that there are to try, seed {}",
                self.points, self.seed
            ),
        };
        let verdict = match self.verdict {
            Verdict::Resumable => "is resumable",
            Verdict::NotResumable => "is NOT resumable",
        };
        writeln!(f, "{} {verdict} ({tried})", self.workflow)
    }
}

impl Report {
    fn grid(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, columns) = (self.rows(), self.columns());
        let first = rows.iter().map(|row| row.to_string().chars().count());
        let first = first.max().unwrap_or(0);
        // Heads of two words stand on two lines.
        let heads: Vec<(&str, &str)> = columns
            .iter()
            .map(|fault| fault.name().rsplit_once(' ').unwrap_or((fault.name(), "")))
            .collect();
        let widths: Vec<usize> = heads.iter().map(|(a, b)| a.len().max(b.len())).collect();
        for line in 0..2 {
            write!(f, "{:first$}", "")?;
            for ((upper, lower), width) in heads.iter().zip(&widths) {
                let word = if line == 0 { upper } else { lower };
                write!(f, "  {word:width$}")?;
            }
            writeln!(f)?;
        }
        for row in rows {
            write!(f, "{:first$}", row.to_string())?;
            for (fault, width) in columns.iter().zip(&widths) {
                write!(f, "  {:width$}", self.cell(row, *fault).mark())?;
            }
            writeln!(f)?;
        }
        writeln!(f)
    }

    fn explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.undisturbed {
            writeln!(f, "undisturbed: {}", finding.kind.name())?;
            paragraph(f, &finding.detail)?;
        }
        for (kind, count, point, finding) in self.failures() {
            let times = if count == 1 {
                String::new()
            } else {
                format!(", in {count} runs")
            };
            writeln!(f, "FAIL {}{times}", kind.name())?;
            paragraph(
                f,
                &format!("First at {}: {}.", point.boundary, point.fault.sentence()),
            )?;
            paragraph(f, &finding.detail)?;
            paragraph(f, kind.advice())?;
            writeln!(f)?;
        }
        let again = self.at_least_once();
        if let Some(advice) = again
            .keys()
            .next()
            .map(|_| crate::Kind::AtLeastOnce.advice())
        {
            let names: Vec<String> = again
                .iter()
                .map(|(activity, count)| format!("{activity} ({count})"))
                .collect();
            writeln!(f, "ok* at least once: {}", names.join(", "))?;
            paragraph(f, advice)?;
            writeln!(f)?;
        }
        if self.tried.iter().any(|of| !of.reached) {
            writeln!(f, "?   the run did not come to this place this time")?;
        }
        Ok(())
    }
}

/// Lines with a margin.
fn paragraph(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for line in text.lines() {
        let mut column = 0;
        for word in line.split_whitespace() {
            let length = word.chars().count() + 1;
            if column > 0 && column + length > WIDTH {
                writeln!(f)?;
                column = 0;
            }
            let space = if column == 0 { "    " } else { " " };
            write!(f, "{space}{word}")?;
            column += length;
        }
        writeln!(f)?;
    }
    Ok(())
}
