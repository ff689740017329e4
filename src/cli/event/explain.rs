//! Says why an event says what it says.
//!
//! In: an event of the wire. Out: facts, each with what it means.
//! Must not know: how decisions are made.

use crate::cli::face_table::liveness;
use crate::cli::output::{Table, exact_moment};
use crate::cli::threshold;
use crate::pb;

/// The facts behind an event.
pub fn facts(event: &pb::Event) -> Table {
    let mut table = Table::of_facts();
    table.fact("cursor", &event.cursor);
    table.fact("visit", &event.visit_id);
    table.fact("captured", exact_moment(event.capture_time.as_ref()));
    table.fact("decided", exact_moment(event.decision_time.as_ref()));
    table.fact("actionable until", exact_moment(event.actionable_until.as_ref()));
    table.fact("snapshot", &event.snapshot_id);
    table.fact("corrects", &event.corrected_cursor);
    if !event.conflicting_visit_id.is_empty() {
        table.fact("conflict", format!("visit {} at the same moment is taken for the same person", event.conflicting_visit_id));
    }
    if let Some(decision) = &event.decision {
        of_decision(&mut table, decision);
    }
    table.fact("face", shot(event));
    table.fact("live score", liveness(event.live_score, event.suspected_attack));
    if let Some(times) = &event.stage_times {
        let stages = [
            ("decode", times.decode_ms),
            ("wait", times.wait_ms),
            ("detect", times.detect_ms),
            ("encode", times.encode_ms),
            ("match", times.match_ms),
            ("decide", times.decide_ms),
            ("publish", times.publish_ms),
        ];
        let total: f32 = stages.iter().map(|(_, ms)| ms).sum();
        let parts = stages.map(|(stage, ms)| format!("{stage} {ms:.1}")).join(", ");
        table.fact("milliseconds", format!("{total:.1}: {parts}"));
    }
    table
}

fn of_decision(table: &mut Table, decision: &pb::Decision) {
    if let Some(similarity) = decision.similarity {
        let by = similarity - decision.threshold;
        let verdict = if by >= 0.0 { "above" } else { "below" };
        table.fact("similarity", format!("{similarity:.3}, {:.3} {verdict} the threshold of {:.3}", by.abs(), decision.threshold));
    }
    let stands_for = threshold::stands_for("false positives", (decision.target_rate, decision.expected_rate), decision.basis());
    let whose = match decision.scope() {
        pb::PolicyScope::Unspecified | pb::PolicyScope::Default => "",
        pb::PolicyScope::Purpose => ", by the daemon's target",
        pb::PolicyScope::Camera => ", by the camera's own target",
        pb::PolicyScope::Watchlist => ", by the target of a watchlist",
        pb::PolicyScope::Subject => ", by the person's own target",
    };
    table.fact("stands for", stands_for.map(|told| format!("{told}{whose}")).unwrap_or_default());
    let second = decision.runner_up.as_ref().map(|second| {
        let who = if second.subject_id.is_empty() { "somebody erased" } else { &second.subject_id };
        let margin = decision.margin.map(|margin| format!(", {margin:.3} behind")).unwrap_or_default();
        format!("{who} at {:.3}{margin}", second.similarity)
    });
    table.fact("runner-up", second.unwrap_or_default());
    table.fact("gallery", format!("{} subjects, version {}", decision.gallery_subject_count, decision.gallery_version));
    let mut refused: Vec<String> = decision.shots_rejected.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
    refused.sort();
    let refused = if refused.is_empty() { "none refused".to_owned() } else { format!("refused: {}", refused.join(", ")) };
    table.fact("shots", format!("{} fused, {refused}", decision.shots_fused));
    table.fact("template space", &decision.template_space);
}

fn shot(event: &pb::Event) -> String {
    let place = event.box_in_frame.as_ref().map(|b| format!("{:.3},{:.3},{:.3},{:.3} of the frame", b.x, b.y, b.width, b.height));
    let score = event.detection_score.map(|score| format!("detection score {score:.2}"));
    let quality = event.quality.map(|quality| format!("best quality {quality:.2}"));
    place.into_iter().chain(score).chain(quality).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_explained_with_what_was_for_and_against_it() {
        let decision = pb::Decision {
            similarity: Some(0.512),
            threshold: 0.363,
            runner_up: Some(pb::Candidate { subject_id: "bert".into(), similarity: 0.3, ..pb::Candidate::default() }),
            margin: Some(0.212),
            gallery_subject_count: 41,
            gallery_version: 7,
            shots_fused: 3,
            shots_rejected: [("blurred".to_owned(), 2), ("turned_away".to_owned(), 1)].into(),
            ..pb::Decision::default()
        };
        let times = pb::StageTimes { detect_ms: 6.5, encode_ms: 4.5, ..pb::StageTimes::default() };
        let event = pb::Event {
            decision: Some(decision),
            stage_times: Some(times),
            live_score: Some(0.018),
            suspected_attack: true,
            ..pb::Event::default()
        };
        let told = facts(&event).lines().join("\n");
        for part in [
            "0.512, 0.149 above the threshold of 0.363",
            "bert at 0.300, 0.212 behind",
            "41 subjects, version 7",
            "3 fused, refused: 1 turned_away, 2 blurred",
            "11.0: decode 0.0",
            "0.02 (looks like a picture)",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
