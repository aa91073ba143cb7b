//! One page, with nothing from elsewhere.

use std::fmt::Write;

use crate::inventory::{Found, Inventory};
use crate::risk::Effect;
use crate::text::day;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c;background:#fff}\
table{border-collapse:collapse;margin:1rem 0;width:100%}th,td{border:1px solid #ccc;padding:.3rem .6rem;text-align:left;vertical-align:top}\
thead th{background:#f3f3f3;font-weight:600}td.n{text-align:right}ul{margin:0;padding-left:1.1rem}\
.lost,.stuck{background:#f9d7d7}.repeated{background:#fdf3d0}.ungoverned{background:#e6e6fa}code{font-family:ui-monospace,monospace}small{color:#666}\
@media(prefers-color-scheme:dark){body{background:#161616;color:#e6e6e6}th,td{border-color:#444}thead th{background:#262626}\
.lost,.stuck{background:#4d1a1a}.repeated{background:#3d3413}.ungoverned{background:#26264d}small{color:#aaa}}";

impl Inventory {
    /// The inventory as a page.
    pub fn to_html(&self) -> String {
        let namespace = escape(&self.namespace);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <title>Inventory of {namespace}</title><style>{STYLE}</style></head><body>\n\
             <h1>What {namespace} would lose or repeat</h1>\n"
        );
        let more = match self.is_complete {
            true => "",
            false => " There are more than could be looked through.",
        };
        // Writing into a string does not fail.
        let _ = writeln!(
            out,
            "<p>{} sessions on {}; the histories of {} were read, at most {} of each type.{more}</p>",
            self.listed,
            escape(&self.at),
            self.read,
            self.sample
        );
        self.html_types(&mut out);
        self.html_tools(&mut out);
        self.html_risks(&mut out);
        out.push_str("</body></html>\n");
        out
    }

    fn html_types(&self, out: &mut String) {
        out.push_str(
            "<h2>Workflow types</h2><table><thead><tr><th scope=\"col\">Score</th><th scope=\"col\">Type</th>\
             <th scope=\"col\">Live</th><th scope=\"col\">Seen</th><th scope=\"col\">Read</th>\
             <th scope=\"col\">Longest</th><th scope=\"col\">Proven</th><th scope=\"col\">What was found</th></tr></thead><tbody>\n",
        );
        for of in &self.types {
            let proven = of.proven.as_ref();
            let proven = proven.map_or("never".to_owned(), |of| {
                format!("{} by {}", escape(day(&of.at)), escape(&of.by))
            });
            let _ = writeln!(
                out,
                "<tr class=\"{}\"><td class=\"n\">{:.1}</td><th scope=\"row\">{}</th><td class=\"n\">{}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{} events</td><td>{proven}</td><td>{}</td></tr>",
                class(&of.risks),
                of.score,
                escape(&of.workflow_type),
                of.live,
                of.listed,
                of.read,
                of.events,
                items(&of.risks)
            );
        }
        out.push_str("</tbody></table>\n");
    }

    fn html_tools(&self, out: &mut String) {
        if self.tools.is_empty() {
            return;
        }
        out.push_str(
            "<h2>Tool calls</h2><table><thead><tr><th scope=\"col\">Score</th><th scope=\"col\">Tool</th>\
             <th scope=\"col\">Called by</th><th scope=\"col\">Calls</th><th scope=\"col\">What was found</th></tr></thead><tbody>\n",
        );
        for of in &self.tools {
            let _ = writeln!(
                out,
                "<tr class=\"{}\"><td class=\"n\">{:.1}</td><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
                class(&of.risks),
                of.score,
                escape(&of.tool),
                escape(&of.workflow_type),
                of.calls,
                items(&of.risks)
            );
        }
        out.push_str("</tbody></table>\n");
    }

    fn html_risks(&self, out: &mut String) {
        out.push_str("<h2>What to do</h2><dl>\n");
        for risk in self.risks() {
            let _ = writeln!(
                out,
                "<dt><b>{}</b> <small>{}</small></dt><dd>{}</dd>",
                escape(risk.name()),
                risk.effect().name(),
                escape(risk.advice())
            );
        }
        out.push_str("</dl>\n");
    }
}

/// The colour of a row is that of the worst.
fn class(risks: &[Found]) -> &'static str {
    risks.first().map_or(Effect::Unknown, |of| of.effect).name()
}

fn items(risks: &[Found]) -> String {
    let mut out = String::from("<ul>");
    for found in risks {
        let tool = match found.tool.is_empty() {
            true => String::new(),
            false => format!(": <code>{}</code>", escape(&found.tool)),
        };
        let _ = write!(out, "<li>{}{tool}", escape(found.risk.name()));
        if let Some(example) = &found.example {
            let _ = write!(
                out,
                ", {} times in {} runs <small>({}; {})</small>",
                found.count,
                found.runs,
                escape(&found.detail),
                escape(&example.workflow_id)
            );
        }
        out.push_str("</li>");
    }
    out.push_str("</ul>");
    out
}

/// Text for a page. Control characters become what is printed for them.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::inventory::{Builder, Of, Proof};
    use crate::reader::{OpenCall, Reader, Settings};

    #[test]
    fn what_others_wrote_is_only_text() {
        const BAD: &str = "<script>alert('&\"\u{1b}[2J')</script>";
        let call = OpenCall {
            tool: BAD.into(),
            attempt: 2,
            maximum_attempts: 2,
            is_started: true,
            ..OpenCall::default()
        };
        let settings = Settings::default();
        let mut run = Reader::new(&settings).finish(&[call]);
        run.calls.insert(BAD.into(), 1);
        let mut builder = Builder::default();
        builder.listed(BAD, true);
        let of = Of {
            workflow_type: BAD,
            workflow_id: BAD,
            run_id: BAD,
        };
        builder.read(of, run);
        let proof = Proof {
            at: BAD.into(),
            by: BAD.into(),
        };
        builder.prove(|_| Some(proof.clone()));
        let inventory = builder.finish(BAD, BAD.into(), 1, false);
        let page = inventory.to_html();
        assert!(page.contains("&lt;script&gt;"));
        assert!(!page.contains("<script") && !page.contains('\u{1b}'));
        let text = inventory.to_string();
        assert!(
            text.contains("in its last attempt (1)") && !text.contains('\u{1b}'),
            "{text}"
        );
    }
}
