//! What a workflow says about itself: search attributes, memo, markers, and the points that a reset
//! can name by build id.

use std::collections::HashMap;

use prost::Message;

use crate::error::{Error, Result};
use crate::proto::command::{
    ModifyWorkflowPropertiesCommandAttributes, RecordMarkerCommandAttributes,
    UpsertWorkflowSearchAttributesCommandAttributes,
};
use crate::proto::common::{Memo, Payload, SearchAttributes};
use crate::proto::enums::WorkflowTaskFailedCause as Cause;
use crate::proto::history::{
    HistoryEvent, MarkerRecordedEventAttributes, UpsertWorkflowSearchAttributesEventAttributes,
    WorkflowPropertiesModifiedEventAttributes, WorkflowTaskCompletedEventAttributes,
};
use crate::proto::workflow::{ResetPointInfo, ResetPoints};
use crate::run::{Cx, Run};

/// Most search attributes that one command may set.
const SEARCH_ATTRIBUTES: usize = 100;
/// Largest value of one search attribute, in bytes.
const SEARCH_ATTRIBUTE_BYTES: usize = 2 * 1024;
/// Largest search attributes of one run together, in bytes.
const SEARCH_ATTRIBUTES_BYTES: usize = 40 * 1024;
/// Reset points that are kept.
const RESET_POINTS: usize = 20;

/// Search attributes that the server sets.
const SYSTEM_SEARCH_ATTRIBUTES: [&str; 16] = [
    "WorkflowId",
    "RunId",
    "WorkflowType",
    "StartTime",
    "ExecutionTime",
    "CloseTime",
    "ExecutionStatus",
    "TaskQueue",
    "HistoryLength",
    "ExecutionDuration",
    "StateTransitionCount",
    "HistorySizeBytes",
    "ParentWorkflowId",
    "ParentRunId",
    "RootWorkflowId",
    "RootRunId",
];

impl Run {
    /// Whether search attributes may be upserted. Whether they are defined, and with which types,
    /// is checked at the server's edge.
    pub(crate) fn check_search_attributes(
        &self,
        _cx: &Cx<'_>,
        command: &UpsertWorkflowSearchAttributesCommandAttributes,
    ) -> Result<()> {
        let bad = |message: String| Err(Error::bad_command(Cause::BadSearchAttributes, message));
        let Some(upserted) = &command.search_attributes else {
            return bad(
                "SearchAttributes is not set on UpsertWorkflowSearchAttributesCommand.".into(),
            );
        };
        let fields = &upserted.indexed_fields;
        if fields.is_empty() {
            return bad(
                "IndexedFields is not set on UpsertWorkflowSearchAttributesCommand.".into(),
            );
        }
        if fields.len() > SEARCH_ATTRIBUTES {
            let count = fields.len();
            return bad(format!(
                "number of search attributes {count} exceeds limit {SEARCH_ATTRIBUTES}"
            ));
        }
        for (name, value) in fields {
            if SYSTEM_SEARCH_ATTRIBUTES.contains(&name.as_str()) {
                return bad(format!("{name} attribute can't be set in SearchAttributes"));
            }
            let size = value.data.len();
            if size > SEARCH_ATTRIBUTE_BYTES {
                return bad(format!(
                    "search attribute {name} value size {size} exceeds size limit {SEARCH_ATTRIBUTE_BYTES}"
                ));
            }
        }
        let mut merged = self.state.search_attributes.clone().unwrap_or_default();
        merge(&mut merged.indexed_fields, fields);
        let size = merged.encoded_len();
        if size > SEARCH_ATTRIBUTES_BYTES {
            return bad(format!(
                "total size of search attributes {size} exceeds size limit {SEARCH_ATTRIBUTES_BYTES}"
            ));
        }
        Ok(())
    }

    pub(crate) fn upsert_search_attributes(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        command: UpsertWorkflowSearchAttributesCommandAttributes,
        adorn: impl FnOnce(&mut HistoryEvent),
    ) {
        self.event_with(
            cx,
            UpsertWorkflowSearchAttributesEventAttributes {
                workflow_task_completed_event_id: completed_event_id,
                search_attributes: command.search_attributes,
            }
            .into(),
            adorn,
        );
    }

    /// Whether the memo may be changed.
    pub(crate) fn check_properties(
        &self,
        cx: &Cx<'_>,
        command: &ModifyWorkflowPropertiesCommandAttributes,
    ) -> Result<()> {
        let bad = |message: &str| {
            Err(Error::bad_command(
                Cause::BadModifyWorkflowPropertiesAttributes,
                message,
            ))
        };
        let Some(upserted) = &command.upserted_memo else {
            return bad("UpsertedMemo is not set on ModifyWorkflowPropertiesCommand.");
        };
        if upserted.fields.is_empty() {
            return bad("UpsertedMemo.Fields is not set on ModifyWorkflowPropertiesCommand.");
        }
        if map_bytes(&upserted.fields) > cx.limits.blob_bytes {
            return bad("ModifyWorkflowPropertiesCommandAttributes exceeds size limit.");
        }
        let mut merged = self.state.memo.clone().unwrap_or_default();
        merge(&mut merged.fields, &upserted.fields);
        if merged.encoded_len() > cx.limits.memo_bytes {
            return bad("ModifyWorkflowPropertiesCommandAttributes. Memo exceeds size limit.");
        }
        Ok(())
    }

    pub(crate) fn modify_properties(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        command: ModifyWorkflowPropertiesCommandAttributes,
        adorn: impl FnOnce(&mut HistoryEvent),
    ) {
        self.event_with(
            cx,
            WorkflowPropertiesModifiedEventAttributes {
                workflow_task_completed_event_id: completed_event_id,
                upserted_memo: command.upserted_memo,
            }
            .into(),
            adorn,
        );
    }

    /// Whether a marker may be recorded.
    pub(crate) fn check_marker(
        &self,
        cx: &Cx<'_>,
        command: &RecordMarkerCommandAttributes,
    ) -> Result<()> {
        let bad = |message: String| {
            Err(Error::bad_command(
                Cause::BadRecordMarkerAttributes,
                message,
            ))
        };
        let limit = cx.limits.id_bytes;
        if command.marker_name.is_empty() {
            return bad("MarkerName is not set on RecordMarkerCommand.".into());
        }
        if command.marker_name.len() > limit {
            return bad(format!(
                "MarkerName on RecordMarkerCommand is longer than {limit} bytes."
            ));
        }
        let details: usize = command
            .details
            .iter()
            .map(|(key, value)| {
                key.len() + value.payloads.iter().map(|p| p.data.len()).sum::<usize>()
            })
            .sum();
        if details > cx.limits.blob_bytes {
            return bad("RecordMarkerCommandAttributes.Details exceeds size limit.".into());
        }
        Ok(())
    }

    pub(crate) fn record_marker(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        command: RecordMarkerCommandAttributes,
        adorn: impl FnOnce(&mut HistoryEvent),
    ) {
        self.event_with(
            cx,
            MarkerRecordedEventAttributes {
                marker_name: command.marker_name,
                details: command.details,
                workflow_task_completed_event_id: completed_event_id,
                header: command.header,
                failure: command.failure,
            }
            .into(),
            adorn,
        );
    }

    pub(crate) fn apply_search_attributes(
        &mut self,
        attributes: &UpsertWorkflowSearchAttributesEventAttributes,
    ) {
        let Some(upserted) = &attributes.search_attributes else {
            return;
        };
        let known = self
            .state
            .search_attributes
            .get_or_insert_with(SearchAttributes::default);
        merge(&mut known.indexed_fields, &upserted.indexed_fields);
    }

    pub(crate) fn apply_properties(
        &mut self,
        attributes: &WorkflowPropertiesModifiedEventAttributes,
    ) {
        let Some(upserted) = &attributes.upserted_memo else {
            return;
        };
        let known = self.state.memo.get_or_insert_with(Memo::default);
        merge(&mut known.fields, &upserted.fields);
    }

    /// Remembers the first workflow task that a build completed: a reset by build id goes there.
    // `binary_checksum` is deprecated in the API and the only version that older workers give.
    #[allow(deprecated)]
    pub(crate) fn add_reset_point(
        &mut self,
        event: &HistoryEvent,
        attributes: &WorkflowTaskCompletedEventAttributes,
    ) {
        let build_id = match (&attributes.deployment_version, &attributes.worker_version) {
            (Some(deployed), _) => deployed.build_id.as_str(),
            (None, Some(version)) => version.build_id.as_str(),
            (None, None) => "",
        };
        let resettable = self.state.children.is_empty()
            && self.state.external_signals.is_empty()
            && self.state.external_cancels.is_empty();
        let points = &mut self
            .state
            .reset_points
            .get_or_insert_with(ResetPoints::default)
            .points;
        let known = points.iter().any(|point| {
            point.build_id == build_id && point.binary_checksum == attributes.binary_checksum
        });
        if known {
            return;
        }
        points.push(ResetPointInfo {
            build_id: build_id.to_owned(),
            binary_checksum: attributes.binary_checksum.clone(),
            run_id: self.state.run_id.clone(),
            first_workflow_task_completed_id: event.event_id,
            create_time: event.event_time,
            expire_time: None,
            resettable,
        });
        let surplus = points.len().saturating_sub(RESET_POINTS);
        points.drain(..surplus);
    }
}

/// Puts the new fields over the old ones; a field whose new value is nothing goes.
fn merge(fields: &mut HashMap<String, Payload>, upserted: &HashMap<String, Payload>) {
    for (name, value) in upserted {
        if is_nothing(value) {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
}

/// Whether a payload stands for no value: nothing, JSON null, or an empty list, which is how some
/// SDKs unset a search attribute.
fn is_nothing(payload: &Payload) -> bool {
    matches!(payload.data.as_slice(), b"" | b"null" | b"[]")
}

fn map_bytes(fields: &HashMap<String, Payload>) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.len() + value.data.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::proto::common::{Payloads, WorkerVersionStamp};
    use crate::run::{Ids, Namespaces};

    struct Nothing;

    impl Ids for Nothing {
        fn uuid(&mut self) -> String {
            String::new()
        }
    }

    impl Namespaces for Nothing {
        fn id(&self, _: &str) -> Option<String> {
            None
        }
    }

    fn with_cx<T>(limits: &Limits, test: impl FnOnce(&Cx<'_>) -> T) -> T {
        let cause = crate::record::Cause::default();
        test(&Cx::new(
            0,
            &mut Nothing,
            limits,
            &Nothing,
            "default",
            cause,
        ))
    }

    fn fields(of: &[(&str, &str)]) -> HashMap<String, Payload> {
        let payload = |data: &str| Payload {
            data: data.as_bytes().to_vec(),
            ..Default::default()
        };
        of.iter()
            .map(|(name, data)| ((*name).to_owned(), payload(data)))
            .collect()
    }

    fn search_attributes(of: &[(&str, &str)]) -> UpsertWorkflowSearchAttributesCommandAttributes {
        UpsertWorkflowSearchAttributesCommandAttributes {
            search_attributes: Some(SearchAttributes {
                indexed_fields: fields(of),
            }),
        }
    }

    fn memo(of: &[(&str, &str)]) -> ModifyWorkflowPropertiesCommandAttributes {
        ModifyWorkflowPropertiesCommandAttributes {
            upserted_memo: Some(Memo { fields: fields(of) }),
        }
    }

    fn cause(result: Result<()>) -> Option<Cause> {
        match result {
            Ok(()) => None,
            Err(Error::BadCommand { cause, .. }) => Some(cause),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn nothing_unsets_and_the_rest_stays() {
        let mut known = fields(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
        merge(
            &mut known,
            &fields(&[
                ("a", ""),
                ("b", "null"),
                ("c", "[]"),
                ("e", "5"),
                ("d", "\"null\""),
            ]),
        );
        assert_eq!(known, fields(&[("d", "\"null\""), ("e", "5")]));
    }

    #[test]
    fn upserts_that_are_refused() {
        let bad = Some(Cause::BadSearchAttributes);
        let long = "x".repeat(SEARCH_ATTRIBUTE_BYTES + 1);
        let names: Vec<String> = (0..=SEARCH_ATTRIBUTES).map(|n| n.to_string()).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        let table = [
            (
                UpsertWorkflowSearchAttributesCommandAttributes {
                    search_attributes: None,
                },
                bad,
            ),
            (search_attributes(&[]), bad),
            (search_attributes(&[("WorkflowId", "1")]), bad),
            (search_attributes(&[("a", &long)]), bad),
            (search_attributes(&many), bad),
            (search_attributes(&many[1..]), None),
            (search_attributes(&[("a", &long[1..])]), None),
        ];
        let run = Run::default();
        for (command, expected) in table {
            let got = with_cx(&Limits::default(), |cx| {
                run.check_search_attributes(cx, &command)
            });
            assert_eq!(cause(got), expected, "{command:?}");
        }
    }

    #[test]
    fn search_attributes_have_a_limit_together() {
        let value = "x".repeat(SEARCH_ATTRIBUTE_BYTES);
        let mut run = Run::default();
        let mut upserts = 0;
        loop {
            let name = upserts.to_string();
            let command = search_attributes(&[(&name, &value)]);
            if with_cx(&Limits::default(), |cx| {
                run.check_search_attributes(cx, &command)
            })
            .is_err()
            {
                break;
            }
            run.apply_search_attributes(&UpsertWorkflowSearchAttributesEventAttributes {
                workflow_task_completed_event_id: 0,
                search_attributes: command.search_attributes,
            });
            upserts += 1;
        }
        assert_eq!(
            upserts, 19,
            "20 values of 2 kB do not fit into 40 kB with their names"
        );
        // Where there is no room any more something can still be unset.
        let unset = search_attributes(&[("0", "")]);
        assert!(
            with_cx(&Limits::default(), |cx| run
                .check_search_attributes(cx, &unset))
            .is_ok()
        );
    }

    #[test]
    fn memos_that_are_refused() {
        let bad = Some(Cause::BadModifyWorkflowPropertiesAttributes);
        let limits = Limits {
            memo_bytes: 100,
            blob_bytes: 80,
            ..Limits::default()
        };
        let mut run = Run::default();
        run.apply_properties(&WorkflowPropertiesModifiedEventAttributes {
            workflow_task_completed_event_id: 0,
            upserted_memo: memo(&[("old", &"x".repeat(40))]).upserted_memo,
        });
        let table = [
            (
                ModifyWorkflowPropertiesCommandAttributes {
                    upserted_memo: None,
                },
                bad,
            ),
            (memo(&[]), bad),
            (memo(&[("new", &"x".repeat(78))]), bad),
            (memo(&[("new", &"x".repeat(40))]), bad),
            (memo(&[("old", &"x".repeat(60))]), None),
            (memo(&[("old", ""), ("new", &"x".repeat(40))]), None),
        ];
        for (command, expected) in table {
            let got = with_cx(&limits, |cx| run.check_properties(cx, &command));
            assert_eq!(cause(got), expected, "{command:?}");
        }
    }

    #[test]
    fn markers_that_are_refused() {
        let bad = Some(Cause::BadRecordMarkerAttributes);
        let limits = Limits {
            id_bytes: 5,
            blob_bytes: 10,
            ..Limits::default()
        };
        let marker = |name: &str, details: usize| RecordMarkerCommandAttributes {
            marker_name: name.into(),
            details: [(
                "k".to_owned(),
                Payloads {
                    payloads: vec![Payload {
                        data: vec![0; details],
                        ..Default::default()
                    }],
                },
            )]
            .into(),
            ..Default::default()
        };
        let table = [
            (marker("", 0), bad),
            (marker("toolong", 0), bad),
            (marker("m", 10), bad),
            (marker("m", 9), None),
        ];
        let run = Run::default();
        for (command, expected) in table {
            let got = with_cx(&limits, |cx| run.check_marker(cx, &command));
            assert_eq!(cause(got), expected, "{command:?}");
        }
    }

    #[test]
    #[allow(deprecated)]
    fn each_build_has_one_reset_point_and_the_newest_are_kept() {
        let mut run = Run::default();
        run.state.run_id = "run".into();
        let mut complete = |event_id: i64, build: &str| {
            let event = HistoryEvent {
                event_id,
                ..Default::default()
            };
            let attributes = WorkflowTaskCompletedEventAttributes {
                worker_version: Some(WorkerVersionStamp {
                    build_id: build.into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            run.add_reset_point(&event, &attributes);
            let points = &run
                .state
                .reset_points
                .as_ref()
                .map_or(&[][..], |points| &points.points);
            points
                .iter()
                .map(|p| (p.build_id.clone(), p.first_workflow_task_completed_id))
                .collect::<Vec<_>>()
        };
        complete(4, "a");
        assert_eq!(complete(8, "a"), [("a".to_owned(), 4)]);
        assert_eq!(
            complete(12, "b"),
            [("a".to_owned(), 4), ("b".to_owned(), 12)]
        );
        for n in 0..19 {
            complete(16 + n, &n.to_string());
        }
        let kept = complete(100, "b");
        assert_eq!(kept.len(), RESET_POINTS);
        assert_eq!(kept[0], ("b".to_owned(), 12));
    }
}
