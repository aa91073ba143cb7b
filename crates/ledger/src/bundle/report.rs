//! The report: one page for people, without scripts and without anything from elsewhere. All that it
//! says comes from entries, which hold what clients sent: every text is escaped.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use super::words::{self, Tone};
use super::{Claim, Manifest, RunSummary, Scope};
use crate::entry::{Entry, Time};

/// Characters of a detail that are shown.
const MAX_DETAIL: usize = 2000;

const STYLE: &str = include_str!("report.html.css");

/// More about an event, for people: what a tool was called with, for example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail<'a> {
    /// The event, of the entry's run.
    pub event_id: i64,
    /// What to say about it.
    pub text: &'a str,
}

/// Writes the rows of the report's timeline, one for each entry.
#[derive(Debug)]
pub struct ReportBuilder<W> {
    out: W,
    row: String,
    /// The run that the last row is about.
    run_id: Option<String>,
}

impl<W: Write> ReportBuilder<W> {
    /// Writes rows to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            row: String::new(),
            run_id: None,
        }
    }

    /// Writes the row of an entry.
    pub fn entry(
        &mut self,
        index: u64,
        entry: &Entry<'_>,
        details: &[Detail<'_>],
    ) -> io::Result<()> {
        self.row.clear();
        if self.run_id.as_deref() != Some(&entry.run_id) {
            self.run_id = Some(entry.run_id.to_string());
            // Writing to a string does not fail.
            let _ = write_heading(&mut self.row, entry);
        }
        let _ = write_row(&mut self.row, index, entry, details);
        self.out.write_all(self.row.as_bytes())
    }

    /// Gives back what the rows were written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

fn write_heading(out: &mut String, entry: &Entry<'_>) -> fmt::Result {
    out.push_str("<tr class=run><th colspan=4>");
    match entry.run_id.as_ref() {
        "" => write!(out, "Namespace {}", Text(&entry.ns))?,
        run_id => write!(
            out,
            "{} <small class=hash>run {}</small>",
            Text(&entry.workflow_id),
            Text(run_id)
        )?,
    }
    out.push_str("</th></tr>\n");
    Ok(())
}

fn write_row(
    out: &mut String,
    index: u64,
    entry: &Entry<'_>,
    details: &[Detail<'_>],
) -> fmt::Result {
    let mut items = String::new();
    let has_failed = write_items(&mut items, entry, details)?;
    let class = if has_failed { " class=failed" } else { "" };
    let cause = &entry.cause;
    writeln!(
        out,
        "<tr{class}><td class=time title=\"{}\">{}<br><small>entry {} · #{index}</small></td>\
         <td>{}<br><small>{}</small></td><td><code>{}</code></td><td><ul>{items}</ul></td></tr>",
        entry.t,
        Moment(entry.t),
        entry.n,
        Text(&cause.principal),
        Text(&words::authentication(&cause.auth)),
        Text(&cause.call),
    )
}

/// Writes what happened, and says whether something failed.
fn write_items(
    out: &mut String,
    entry: &Entry<'_>,
    details: &[Detail<'_>],
) -> Result<bool, fmt::Error> {
    let mut has_failed = false;
    let mut item = |out: &mut String, tone: Tone, text: &dyn fmt::Display| {
        has_failed |= tone == Tone::Failed;
        write!(out, "<li{}>{text}</li>", Class(tone))
    };
    if let Some(follows) = &entry.follows {
        let run_id = Text(&follows.run_id);
        match follows.event_id {
            0 => item(out, Tone::Plain, &format_args!("Follows run {run_id}"))?,
            id => item(
                out,
                Tone::Plain,
                &format_args!("Was reset from run {run_id}, after event {id}"),
            )?,
        }
    }
    for event in &entry.events {
        let (tone, sentence) = words::event(&event.event_type);
        let by = By(&event.by);
        let detail = details.iter().find(|detail| detail.event_id == event.id);
        let detail = Extra(detail.map_or("", |detail| detail.text));
        let sentence = Text(&sentence);
        let id = event.id;
        item(
            out,
            tone,
            &format_args!("{sentence}{by} <small>event {id}</small>{detail}"),
        )?;
    }
    if let Some(range) = &entry.event_range {
        let (first, last) = (range.first, range.last);
        item(
            out,
            Tone::Plain,
            &format_args!("Events {first} to {last}: too many to list"),
        )?;
        let in_range = |detail: &&Detail<'_>| (first..=last).contains(&detail.event_id);
        for detail in details.iter().filter(in_range) {
            let (id, text) = (detail.event_id, Extra(detail.text));
            item(out, Tone::Plain, &format_args!("Event {id}{text}"))?;
        }
    }
    for buffered in &entry.buffered {
        let (tone, sentence) = words::event(&buffered.event_type);
        let sentence = Text(&sentence);
        item(
            out,
            tone,
            &format_args!("{sentence} <small>takes its place in history later</small>"),
        )?;
    }
    let decisions = entry.decisions.iter().map(words::decision);
    for (tone, sentence) in decisions.chain(entry.approvals.iter().map(words::approval)) {
        item(out, tone, &Text(&sentence))?;
    }
    for attempt in &entry.attempts {
        let (tone, sentence) = words::attempt(attempt);
        let (sentence, id) = (Text(&sentence), attempt.scheduled_event_id);
        item(
            out,
            tone,
            &format_args!("{sentence} <small>scheduled by event {id}</small>"),
        )?;
    }
    if entry.omitted > 0 {
        let omitted = entry.omitted;
        item(
            out,
            Tone::Plain,
            &format_args!("{omitted} more, not listed"),
        )?;
    }
    if let Some(note) = &entry.note {
        let what = words::note(&note.what);
        let (what, about, detail) = (Text(&what), About(note), Extra(&note.detail));
        item(out, Tone::Plain, &format_args!("{what}{about}{detail}"))?;
    }
    if !entry.closed.is_empty() {
        let tone = match entry.closed.as_ref() {
            "COMPLETED" | "CONTINUED_AS_NEW" => Tone::Done,
            _ => Tone::Failed,
        };
        let closed = Text(&entry.closed);
        item(out, tone, &format_args!("<b>Closed as {closed}</b>"))?;
    }
    if entry.deleted {
        item(
            out,
            Tone::Plain,
            &format_args!("<b>The run was deleted</b>: nothing of it is kept but its entries"),
        )?;
    }
    Ok(has_failed)
}

/// Writes the page. `rows` writes those of a [`ReportBuilder`].
pub fn write_page<W: Write>(
    out: &mut W,
    manifest: &Manifest,
    rows: impl FnOnce(&mut W) -> io::Result<()>,
) -> io::Result<()> {
    write!(
        out,
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\n\
         <meta http-equiv=Content-Security-Policy \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=viewport content=\"width=device-width\">\n\
         <title>Evidence: {}</title>\n<style>\n{STYLE}</style></head><body>\n",
        Title(&manifest.scope)
    )?;
    write_cover(out, manifest)?;
    if !manifest.runs.is_empty() {
        write_runs(out, &manifest.runs)?;
    }
    write!(
        out,
        "<h2>What happened</h2>\n<table><thead><tr><th>Time (UTC)<th>Who<th>Call\
         <th>What happened</tr></thead><tbody>\n"
    )?;
    rows(out)?;
    out.write_all(b"</tbody></table>\n</body></html>\n")
}

fn write_cover(out: &mut impl Write, manifest: &Manifest) -> io::Result<()> {
    let counts = manifest.counts;
    write!(
        out,
        "<h1>{}</h1>\n<p>{}</p>\n\
         <p class=dim>This page is no proof by itself. <code>steadfast evidence verify</code> checks \
         the bundle that it is in, and README.txt says how to do that with other tools.</p>\n<dl>\n",
        Title(&manifest.scope),
        completeness(&manifest.scope),
    )?;
    let mut line =
        |name: &str, value: &dyn fmt::Display| writeln!(out, "<dt>{name}</dt><dd>{value}</dd>");
    line("Namespace", &Text(&manifest.namespace))?;
    line("Made", &Moment(manifest.made))?;
    line("Log", &Text(&manifest.origin))?;
    let (size, root) = (manifest.tree.size, manifest.tree.root);
    let head = format_args!("{size} entries, root <span class=hash>{root}</span>").to_string();
    line("Head of the log", &head)?;
    let (entries, runs, events) = (counts.entries, counts.runs, counts.events);
    let contents = format!("{entries} entries about {runs} runs, {events} events of history");
    line("In this bundle", &contents)?;
    for (name, keys) in [
        ("Key of the log", &manifest.keys.log),
        ("Key of a witness", &manifest.keys.witnesses),
    ] {
        for key in keys {
            line(name, &format!("<span class=hash>{}</span>", Text(key)))?;
        }
    }
    writeln!(out, "</dl>")
}

fn completeness(scope: &Scope) -> &'static str {
    match scope {
        Scope::Session { .. } => {
            "The runs of this workflow id in the log, each from its first entry on. Nothing is left \
             out within a run, and no run that another one follows; that there are no others cannot \
             be shown."
        }
        Scope::Principal { .. } => {
            "What the principal did. Within each run it is said below how complete this is; \
             that there are no other runs cannot be shown."
        }
        Scope::Range { .. } => "All entries of this part of the log, of whatever they are about.",
    }
}

fn write_runs(out: &mut impl Write, runs: &[RunSummary]) -> io::Result<()> {
    write!(
        out,
        "<h2>Runs</h2>\n<table><thead><tr><th>Workflow<th>Run<th>Ended<th>Entries<th>Events\
         <th>Covered</tr></thead><tbody>\n"
    )?;
    for run in runs {
        write_run(out, run)?;
    }
    writeln!(out, "</tbody></table>")
}

fn write_run(out: &mut impl Write, run: &RunSummary) -> io::Result<()> {
    let ended = match (&run.closed, run.deleted) {
        (Some(closed), true) => format!("{}, then deleted", Text(closed)),
        (Some(closed), false) => Text(closed).to_string(),
        (None, true) => "deleted".to_owned(),
        (None, false) => "not yet".to_owned(),
    };
    let events = match run.events {
        Some(events) if run.erased => format!("{events}, some without their payloads"),
        Some(events) => events.to_string(),
        None => "not here".to_owned(),
    };
    let covered = match run.claim {
        Claim::Complete => "completely".to_owned(),
        Claim::AsOf => format!("as of entry {}", run.last_entry),
        Claim::Partial => "in part".to_owned(),
    };
    writeln!(
        out,
        "<tr><td>{}<td class=hash>{}<td>{ended}<td>{}<td>{events}<td>{covered}</tr>",
        Text(&run.workflow_id),
        Text(&run.run_id),
        run.entries,
    )
}

struct Title<'a>(&'a Scope);

impl fmt::Display for Title<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Scope::Session { workflow_id } => write!(f, "Session {}", Text(workflow_id)),
            Scope::Principal { principal } => write!(f, "What {} did", Text(principal)),
            Scope::Range { from, to } => write!(f, "Entries {from} to {to} of the log"),
        }
    }
}

struct Class(Tone);

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Tone::Plain => "",
            Tone::Failed => " class=failed",
            Tone::Done => " class=done",
        })
    }
}

struct By<'a>(&'a str);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            name => write!(f, ", by {}", Text(name)),
        }
    }
}

struct Extra<'a>(&'a str);

impl fmt::Display for Extra<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clipped = self.0.char_indices().nth(MAX_DETAIL);
        match (self.0, clipped) {
            ("", _) => Ok(()),
            (text, None) => write!(f, "<br><small>{}</small>", Text(text)),
            (text, Some((end, _))) => {
                write!(f, "<br><small>{}…</small>", Text(&text[..end]))
            }
        }
    }
}

struct About<'a>(&'a crate::entry::Note<'a>);

impl fmt::Display for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.workflow_id.as_ref(), self.0.run_id.as_ref()) {
            ("", "") => Ok(()),
            (workflow_id, "") => write!(f, ": {}", Text(workflow_id)),
            (workflow_id, run_id) => write!(f, ": {}, run {}", Text(workflow_id), Text(run_id)),
        }
    }
}

/// A time to the millisecond.
struct Moment(Time);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let day = text.get(..10).unwrap_or(&text);
        write!(f, "{day} {}", text.get(11..23).unwrap_or_default())
    }
}

/// A text that may be anything, in HTML.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(' ')?,
                // What cannot be seen, or makes other text look like something else.
                _ if is_hidden(character) => write!(f, "\\u{{{:x}}}", u32::from(character))?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        let hostile = "<script>alert('\"&')</script>\u{202e}\u{0}\n";
        let expected = "&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;\\u{202e}\\u{0} ";
        assert_eq!(Text(hostile).to_string(), expected);
    }

    #[test]
    fn long_details_are_clipped() {
        let long = "ä".repeat(MAX_DETAIL + 1);
        let shown = Extra(&long).to_string();
        assert!(shown.ends_with("ä…</small>"), "{shown}");
    }

    #[test]
    fn times_are_short() {
        let time = Time(1_700_000_000_123_456_789);
        assert_eq!(Moment(time).to_string(), "2023-11-14 22:13:20.123");
    }
}
