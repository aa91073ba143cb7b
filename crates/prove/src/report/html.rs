//! One page, with nothing from elsewhere.

use std::fmt::Write;

use super::junit::escape;
use super::{Cell, Report, Verdict};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c;background:#fff}\
table{border-collapse:collapse;margin:1rem 0}th,td{border:1px solid #ccc;padding:.3rem .6rem;text-align:left;vertical-align:top}\
thead th{background:#f3f3f3;font-weight:600}.good{background:#e3f4e3}.note{background:#fdf3d0}.failure{background:#f9d7d7;font-weight:600}\
.none{background:#f8f8f8}code{font-family:ui-monospace,monospace}\
@media(prefers-color-scheme:dark){body{background:#161616;color:#e6e6e6}th,td{border-color:#444}thead th{background:#262626}\
.good{background:#173417}.note{background:#3d3413}.failure{background:#4d1a1a}.none{background:#1d1d1d}}";

impl Report {
    /// The report as a page.
    pub fn to_html(&self) -> String {
        let workflow = escape(&self.workflow);
        let verdict = match self.verdict {
            Verdict::Resumable => "is resumable",
            Verdict::NotResumable => "is not resumable",
        };
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <title>{workflow} {verdict}</title><style>{STYLE}</style></head><body>\n\
             <h1>{workflow} {verdict}</h1>\n"
        );
        // Writing into a string does not fail.
        let _ = writeln!(
            out,
            "<p>Worker <code>{}</code>. {} of {} things tried, seed {}.</p>",
            escape(&self.worker),
            self.tried.len(),
            self.points,
            self.seed
        );
        for finding in &self.undisturbed {
            let _ = writeln!(
                out,
                "<p class=\"note\">Undisturbed: {}: {}</p>",
                finding.kind.name(),
                escape(&finding.detail)
            );
        }
        self.html_grid(&mut out);
        for (kind, count, point, finding) in self.failures() {
            let _ = writeln!(
                out,
                "<h2>{} ({count})</h2><p>First at {}: {}.</p><p>{}</p><p>{}</p>",
                kind.name(),
                escape(&point.boundary.to_string()),
                point.fault.sentence(),
                escape(&finding.detail),
                escape(kind.advice())
            );
        }
        let again = self.at_least_once();
        if !again.is_empty() {
            let _ = write!(out, "<h2>At least once</h2><ul>");
            for (activity, count) in again {
                let _ = write!(out, "<li>{}: in {count} runs</li>", escape(activity));
            }
            let advice = escape(crate::Kind::AtLeastOnce.advice());
            let _ = writeln!(out, "</ul><p>{advice}</p>");
        }
        out.push_str("</body></html>\n");
        out
    }

    fn html_grid(&self, out: &mut String) {
        out.push_str("<table><thead><tr><th scope=\"col\">Where</th>");
        for fault in self.columns() {
            let _ = write!(out, "<th scope=\"col\">{}</th>", fault.name());
        }
        out.push_str("</tr></thead><tbody>\n");
        for row in self.rows() {
            let _ = write!(
                out,
                "<tr><th scope=\"row\">{}</th>",
                escape(&row.to_string())
            );
            for fault in self.columns() {
                let cell = self.cell(row, fault);
                let class = match cell {
                    Cell::Good => "good",
                    Cell::Note => "note",
                    Cell::Failure => "failure",
                    Cell::NotReached | Cell::NotTried | Cell::None => "none",
                };
                let _ = write!(out, "<td class=\"{class}\">{}</td>", cell.mark());
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody></table>\n<p>ok*: something is to be known. ?: the run did not come there. -: not tried.</p>\n");
    }
}
