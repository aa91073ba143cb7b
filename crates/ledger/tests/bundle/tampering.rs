//! One change, one finding: each names what was changed, and where.

use steadfast_ledger::bundle::{BundleError, Code, Scope, Verdict};
use steadfast_ledger::{Entry, Hash};

use crate::files::{changed, changed_lines, pack, unpack};
use crate::world::{SESSION, log_key, session, world};
use crate::{assert_found, assert_verified, check, check_with};

#[test]
fn a_changed_byte_of_an_event_is_found() {
    let mut world = world();
    let events = world.histories.get_mut("first").expect("is there");
    *events[1].bytes.last_mut().expect("has bytes") ^= 1;
    assert_found(&world.session(), Code::EventAltered, "run first, event 2");
    // The log's key signed that one. Here it did not.
    let bundle = changed("history/first.binpb", |content| content[80] ^= 1);
    assert_found(&bundle, Code::FileAltered, "history/first.binpb");
    assert_found(&bundle, Code::EventAltered, "run first, event 2");
}

#[test]
fn a_changed_payload_is_found() {
    let mut world = world();
    let events = world.histories.get_mut("second").expect("is there");
    let offset = events[0].payloads[0].0.offset as usize;
    events[0].bytes[offset] ^= 1;
    assert_found(&world.session(), Code::EventAltered, "run second, event 1");
}

#[test]
fn nothing_can_be_put_in_the_place_of_what_was_erased() {
    let mut world = world();
    let events = world.histories.get_mut("erased").expect("is there");
    let offset = events[0].payloads[0].0.offset as usize;
    events[0].bytes[offset] = b'!';
    assert_found(&world.session(), Code::EventAltered, "run erased, event 1");
}

#[test]
fn a_changed_event_that_is_not_listed_is_found() {
    let mut world = world();
    let events = world.histories.get_mut("first").expect("is there");
    *events[8].bytes.last_mut().expect("has bytes") ^= 1;
    assert_found(&world.session(), Code::EventAltered, "run first, event 6");
}

#[test]
fn a_changed_event_of_the_run_before_a_reset_is_found() {
    let mut world = world();
    for event in [3, 7] {
        let events = world.histories.get_mut("third").expect("is there");
        *events[event].bytes.last_mut().expect("has bytes") ^= 1;
        let place = format!("run third, event {}", event + 1);
        assert_found(&world.session(), Code::EventAltered, &place);
    }
}

#[test]
fn a_removed_entry_is_found() {
    let bundle = changed_lines("entries.jsonl", |lines| {
        lines.remove(2);
    });
    assert_found(&bundle, Code::EntryMissing, "index 7");
    assert_found(&bundle, Code::EntryMissing, "run first, entry 3");
    // With its hash in its place, the tree is whole.
    let world = world();
    let bundle = changed_lines("entries.jsonl", |lines| {
        lines.remove(2);
    });
    let mut files = unpack(&bundle);
    let hash = Hash::leaf(&world.log[7]);
    let text = String::from_utf8(files[3].1.clone()).expect("is a text");
    let mut lines: Vec<&str> = text.lines().collect();
    let line = format!("{{\"hash\":\"{hash}\",\"index\":7,\"level\":0}}");
    let at = lines
        .iter()
        .position(|line| line.contains("\"index\":10,\"level\":0"));
    lines.insert(at.unwrap_or(2), &line);
    files[3].1 = lines
        .iter()
        .map(|line| format!("{line}\n"))
        .collect::<String>()
        .into();
    assert_found(&pack(&files), Code::EntryMissing, "run first, entry 3");
}

#[test]
fn entries_in_another_order_are_found() {
    let bundle = changed_lines("entries.jsonl", |lines| lines.swap(1, 2));
    assert_found(&bundle, Code::OrderChanged, "entries.jsonl, index 6");
    assert_found(&bundle, Code::OrderChanged, "run first, entry 2");
    let report = check(&bundle);
    let codes: Vec<Code> = report.findings.iter().map(|finding| finding.code).collect();
    assert!(!codes.contains(&Code::EntryMissing), "{report}");
}

#[test]
fn events_in_another_order_are_found() {
    let mut world = world();
    let events = world.histories.get_mut("first").expect("is there");
    events.swap(2, 3);
    assert_found(&world.session(), Code::OrderChanged, "run first, event 3");
}

#[test]
fn a_truncated_history_is_found() {
    let mut world = world();
    let events = world.histories.get_mut("first").expect("is there");
    events.pop();
    assert_found(
        &world.session(),
        Code::HistoryTruncated,
        "run first, event 12",
    );
    let bundle = changed("history/second.binpb", |content| {
        content.pop();
    });
    assert_found(&bundle, Code::EventAltered, "run second, event 2");
}

#[test]
fn a_removed_event_is_found() {
    let mut world = world();
    world
        .histories
        .get_mut("first")
        .expect("is there")
        .remove(2);
    assert_found(&world.session(), Code::EventMissing, "run first, event 3");
}

#[test]
fn an_event_too_many_is_found() {
    let bundle = changed("history/second.binpb", |content| {
        let first = content[..usize::from(content[1]) + 2].to_vec();
        content.extend(first);
        content.extend(b"\x0a\x02\x08\x09");
    });
    assert_found(&bundle, Code::OrderChanged, "run second, event 1");
    assert_found(&bundle, Code::EventUnexpected, "run second, event 9");
}

#[test]
fn an_altered_entry_is_found() {
    let rename = |line: &mut String| *line = line.replacen("alice", "mallory", 1);
    for (line, place) in [
        (0, "index 4, run first, entry 1"),
        (2, "index 7, run first, entry 3"),
    ] {
        let bundle = changed_lines("entries.jsonl", |lines| rename(&mut lines[line]));
        assert_found(&bundle, Code::EntryAltered, place);
        assert_found(&bundle, Code::RootMismatch, "");
    }
    let bundle = changed_lines("entries.jsonl", |lines| {
        lines[3] = lines[3].replace("\"n\":4", "\"n\": 4");
    });
    assert_found(&bundle, Code::EntryAltered, "index 8");
}

#[test]
fn an_altered_node_is_found() {
    let bundle = changed_lines("tree.jsonl", |lines| {
        lines[1] = lines[0].replace("\"index\":0,\"level\":2", "\"index\":2,\"level\":1");
        lines.truncate(2);
    });
    assert_eq!(check(&bundle).verdict, Verdict::Failed);
    let bundle = changed_lines("tree.jsonl", |lines| {
        lines.remove(0);
    });
    assert_found(&bundle, Code::EntryMissing, "index 0");
}

#[test]
fn a_log_that_was_rolled_back_is_found() {
    let world = world();
    let mut older = world.clone();
    older.log.truncate(10);
    let checkpoint = older.checkpoint(&log_key(1));
    let bundle = changed("checkpoint", |content| {
        *content = checkpoint.clone().into_bytes();
    });
    assert_found(&bundle, Code::LogRolledBack, "index 14");
    let refused = world.bundle_with(session(), &checkpoint, &log_key(1));
    assert!(matches!(refused, Err(BundleError::Order(14))));
}

#[test]
fn a_forged_checkpoint_is_found() {
    let world = world();
    let mut forked = world.clone();
    forked.noise(1);
    forked.log.remove(1);
    let other_root = forked.checkpoint(&log_key(1));
    let bundle = changed("checkpoint", |content| {
        *content = other_root.clone().into_bytes();
    });
    assert_found(&bundle, Code::RootMismatch, "");
    // The text of one, with the signatures of another.
    let bundle = changed("checkpoint", |content| {
        let old = String::from_utf8(content.clone()).expect("is a text");
        let (_, signatures) = old.split_once("\n\n").expect("has some");
        let (text, _) = other_root.split_once("\n\n").expect("has one");
        *content = format!("{text}\n\n{signatures}").into_bytes();
    });
    assert_found(&bundle, Code::CheckpointForged, "checkpoint");
    assert_found(&bundle, Code::CosignatureForged, "checkpoint");
    let bundle = changed("checkpoint", |content| content.truncate(20));
    assert_found(&bundle, Code::CheckpointForged, "checkpoint");
}

#[test]
fn another_key_is_found() {
    let world = world();
    let key = log_key(2);
    let bundle = world
        .bundle_with(session(), &world.checkpoint(&key), &key)
        .expect("is written");
    assert_found(&bundle, Code::UnknownKey, "checkpoint");
    assert_found(&bundle, Code::UnknownKey, "statement.dsse.json");
    assert_eq!(check(&bundle).total, 2);
    // The log's checkpoint, and a statement by somebody else.
    let checkpoint = world.checkpoint(&log_key(1));
    let bundle = world.bundle_with(session(), &checkpoint, &key);
    let bundle = bundle.expect("is written");
    assert_found(&bundle, Code::UnknownKey, "statement.dsse.json");
    assert_eq!(check(&bundle).total, 1);
    // Nobody is trusted.
    let report = check_with(&world.session(), &[], 0);
    assert_eq!(report.verdict, Verdict::Failed);
}

#[test]
fn files_that_are_missing_or_too_many_are_found() {
    let files = unpack(&world().session());
    for place in 0..files.len() {
        let mut fewer = files.clone();
        let (name, _) = fewer.remove(place);
        assert_found(&pack(&fewer), Code::FileMissing, &name);
    }
    for name in ["history/other.binpb", "extra", "history/deleted.binpb"] {
        let mut more = files.clone();
        more.push((name.into(), b"x".to_vec()));
        assert_found(&pack(&more), Code::FileUnexpected, name);
    }
}

#[test]
fn a_run_that_is_left_out_is_found() {
    let mut world = world();
    // The one that others follow.
    let is_first = |entry: &Vec<u8>| Entry::parse(entry).expect("parses").run_id == "first";
    for entry in world.log.iter_mut().filter(|entry| is_first(entry)) {
        *entry = String::from_utf8_lossy(entry)
            .replace(SESSION, "hidden")
            .into();
    }
    let bundle = world.session();
    assert_found(&bundle, Code::EntryMissing, "run second, entry 1");
    // A part of the log begins in the middle.
    let size = world.log.len() as u64;
    let report = assert_verified(&world.bundle(Scope::Range { from: 16, to: size }));
    assert!(!report.unchecked.is_empty(), "{report}");
}

#[test]
fn an_entry_that_does_not_belong_is_found() {
    let world = world();
    let scope = Scope::Session {
        workflow_id: "another".into(),
    };
    let bundle = world.bundle(scope);
    assert_found(&bundle, Code::FileMissing, "history/another.binpb");
    let mut files = unpack(&world.session());
    let text = String::from_utf8(files[13].1.clone()).expect("is a text");
    files[13].1 = text.replace(SESSION, "another").into();
    let bundle = pack(&files);
    assert_found(&bundle, Code::OutOfScope, "run first, entry 1");
    assert_found(&bundle, Code::ManifestFalse, "manifest.json");
}

#[test]
fn false_claims_are_found() {
    for (claim, other) in [
        ("\"claim\": \"as-of\"", "\"claim\": \"complete\""),
        ("\"events\": 2,", "\"events\": 3,"),
        ("\"erased\": true", "\"erased\": false"),
        ("\"deleted\": true", "\"deleted\": false"),
        ("\"closed\": \"COMPLETED\"", "\"closed\": \"FAILED\""),
        ("\"runs\": 5", "\"runs\": 4"),
        ("evidence-bundle/1", "evidence-bundle/2"),
        ("\"origin\": \"log", "\"origin\": \"fog"),
    ] {
        let bundle = changed("manifest.json", |content| {
            let text = String::from_utf8(content.clone()).expect("is a text");
            assert!(text.contains(claim), "{claim} in {text}");
            *content = text.replacen(claim, other, 1).into_bytes();
        });
        assert_found(&bundle, Code::ManifestFalse, "manifest.json");
    }
}

#[test]
fn lines_about_events_that_are_not_there_are_found() {
    let digest = Hash([0; 32]);
    let about = |id: i64| {
        format!(
            "{{\"event_id\":{id},\"spans\":[{{\"digest\":\"{digest}\",\"length\":1,\"offset\":0}}]}}\n"
        )
    };
    for line in [about(900), "nothing\n".to_owned(), about(1)] {
        // Where the log's key signed that, only the line itself is wrong.
        let name = "history/second.payloads.jsonl";
        let bundle = changed(name, |content| content.extend(line.as_bytes()));
        assert_found(&bundle, Code::FileMalformed, name);
    }
}
